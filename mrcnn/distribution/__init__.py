"""Several devices and several processes that train as one, by the framework's own means."""
