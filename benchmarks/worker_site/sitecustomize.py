"""Python runs this first in the benchmark's processes, which then can import torchvision beside a CPU torch."""

from benchmarks import torchvision_cpu  # noqa: F401
