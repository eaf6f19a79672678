"""The numbers that modules keep about their own tensors, corrected from the tensors themselves."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def correct_numbers_(model: nn.Module) -> None:
    """Set `in_channels`, `out_features`, `num_features`, ... of every known module to what its tensors are now."""
    for module in model.modules():
        if isinstance(module, CONVOLUTIONS) and module.weight.dim() > 2:
            module.out_channels = module.weight.shape[0]
            module.in_channels = module.weight.shape[1] * module.groups
        elif isinstance(module, TRANSPOSED):
            module.in_channels = module.weight.shape[0]
            module.out_channels = module.weight.shape[1] * module.groups
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, _NormBase):
            tensors = (module.running_mean, module.weight)
            known = [t.shape[0] for t in tensors if t is not None]
            module.num_features = known[0] if known else module.num_features
        elif isinstance(module, nn.PReLU):
            module.num_parameters = module.weight.numel()
        elif isinstance(module, nn.RNNBase) and not module.proj_size:
            inward, again = (module.get_parameter(f"weight_{kind}_l0") for kind in ("ih", "hh"))
            module.input_size, module.hidden_size = inward.shape[1], again.shape[1]
            module.flatten_parameters()
        elif isinstance(module, nn.Embedding):
            module.num_embeddings, module.embedding_dim = module.weight.shape
        elif isinstance(shape := getattr(module, "normalized_shape", None), tuple):  # nn.RMSNorm, and those like it
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.dim() == len(shape):
                setattr(module, "normalized_shape", tuple(weight.shape))  # noqa: B010 any module's
