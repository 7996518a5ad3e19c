"""``vmk demo``: an unmodified Linux driver drives one device of QEMU's or a model, and what it moves is checked.

command.py is the command, one_device.py the machine, session.py the host on it. A network device moves frames (nic.py),
a storage controller blocks of a disk (disk.py).
"""
