"""treadle: write it eagerly, run it as one compiled graph."""
