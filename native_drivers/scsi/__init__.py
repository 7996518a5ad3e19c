"""Drivers of SCSI and RAID controllers, and of iSCSI."""
