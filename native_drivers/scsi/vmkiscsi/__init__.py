"""ESX's software iSCSI initiator: SCSI over TCP by libiscsi, no hardware and no kernel needed."""

from native_drivers.scsi.vmkiscsi.initiator import VmkIscsi

DRIVER = VmkIscsi
