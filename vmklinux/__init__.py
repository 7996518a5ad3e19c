"""The Linux emulation layer: the only way a device gets into vmkernel_core."""
