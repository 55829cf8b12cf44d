"""Machine code: loop nests and contractions to object code, and the loop interpreter."""
