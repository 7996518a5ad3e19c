"""The driver interface for drivers in Python: Linux's names over Python objects, with no kernel image behind them.

A driver is a class (``pci.PciDriver``) of which each device gets an instance. Whatever it takes of its device is given
back in reverse order when its probe fails or it is removed (``devres``). Everything of it runs with the baton held.
docs/native.md tells how to write one.
"""
