"""Linux modules as files: parsing, relocation, parameters, the scan before execution. Nothing is run."""
