"""Pictures: on arrays with Pillow, as figures with matplotlib, which is imported only where a figure is made."""
