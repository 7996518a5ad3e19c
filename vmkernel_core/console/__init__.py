"""The console: the ``vmk`` command."""
