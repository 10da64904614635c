"""Pictures: drawing on arrays, and figures."""
