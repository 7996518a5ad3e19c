"""What ``hcl certify`` looks at: suite.py runs checks and records them, nic.py and storage.py have those of each class.

The far side of each check is not the driver's: a wire's other end (wire.py), or the file behind a disk.
"""
