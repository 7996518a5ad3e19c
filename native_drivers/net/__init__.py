"""Drivers of network devices, a folder for each of ESX 3's."""
