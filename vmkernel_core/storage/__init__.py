"""Storage as the hypervisor sees it: adapters (``vmhba0``), devices that serve blocks, and their errors."""
