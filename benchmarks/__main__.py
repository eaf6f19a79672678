"""All benchmarks, one after the other: `make bench`."""

from __future__ import annotations

import sys

from benchmarks import against_itself, analyzer, masked_vs_slim, quantized, widths

if __name__ == "__main__":
    failed = masked_vs_slim.main()
    failed |= against_itself.main()
    analyzer.main()
    widths.main()
    quantized.main()
    sys.exit(failed)
