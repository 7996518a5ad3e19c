"""mptscsi_2xx: LSI's Fusion-MPT host adapters of the first generation; of these, the SAS ones. README.md says more."""

from native_drivers.scsi.mptscsi_2xx.driver import MptSas

DRIVER = MptSas
