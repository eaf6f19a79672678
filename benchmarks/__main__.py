"""All benchmarks, one after the other: `make bench`."""

from __future__ import annotations

from benchmarks import masked_vs_slim

if __name__ == "__main__":
    masked_vs_slim.main()
