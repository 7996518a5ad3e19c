"""MegaRAID SAS controllers with MFI firmware: SAS1078 and its successors (ESX: megaraid_sas)."""

from native_drivers.scsi.megaraid_sas.driver import MegaraidSas

DRIVER = MegaraidSas
