"""Small nets in float64 with dead channels whose rows, biases, shifts and consumers' columns are all zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Heads(nn.Module):
    """One attention block: (batch, tokens, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim = 4, 4
        self.norm = nn.RMSNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Insisting(nn.Module):
    """Its code checks a size: it comes back as a captured graph."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        if y.shape[-1] != 6:
            raise ValueError("six")
        return self.b(y)


def insisting() -> tuple[nn.Module, Tensor]:
    """Half of its hidden units are dead."""
    torch.manual_seed(4)
    net = Insisting().double()
    with torch.no_grad():
        net.a.weight[:3], net.a.bias[:3], net.b.weight[:, :3] = 0, 0, 0
    return net, torch.randn(5, 4, dtype=torch.float64)


def mlp() -> tuple[nn.Module, Tensor]:
    """Two hidden layers, half and a third of them dead."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3)).double()
    with torch.no_grad():
        net[0].weight[::2], net[0].bias[::2], net[2].weight[:, ::2] = 0, 0, 0
        net[2].weight[1::3], net[2].bias[1::3], net[4].weight[:, 1::3] = 0, 0, 0
    return net, torch.randn(8, 6, dtype=torch.float64)


def conv() -> tuple[nn.Module, Tensor]:
    """A grouped convolution that loses other channels in each group; no norms."""
    torch.manual_seed(1)
    first, grouped, last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(8, 4, 1)
    with torch.no_grad():
        for dead, column in ((1, 1), (6, 2)):  # of conv group 0 its second input, of group 1 its third
            first.weight[dead], first.bias[dead] = 0, 0
            grouped.weight[4 * (dead > 3) : 4 * (dead > 3) + 4, column] = 0
        for dead in (0, 3, 4, 5):
            grouped.weight[dead], grouped.bias[dead], last.weight[:, dead] = 0, 0, 0
    net = nn.Sequential(first, nn.ReLU(), grouped, nn.ReLU(), last, nn.Flatten())
    return net.double(), torch.randn(4, 3, 5, 5, dtype=torch.float64)


def batch_norm() -> tuple[nn.Module, Tensor]:
    """Convolutions with BatchNorm, whose dead channels have a gain and a shift of zero."""
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.Flatten()
    )
    with torch.no_grad():
        net[1].weight.uniform_(0.5, 1.5)
        net[1].bias.normal_()
        net[1].running_mean.normal_()
        net[0].weight[1::2], net[1].weight[1::2], net[1].bias[1::2], net[3].weight[:, 1::2] = 0, 0, 0, 0
    return net.double(), torch.randn(4, 3, 5, 5, dtype=torch.float64)


def heads() -> tuple[nn.Module, Tensor]:
    """A transformer block without one head and some hidden units."""
    torch.manual_seed(3)
    net = Heads()
    with torch.no_grad():
        for start in (0, 16, 32):  # q, k, v of the second head
            net.qkv.weight[start + 4 : start + 8], net.qkv.bias[start + 4 : start + 8] = 0, 0
        net.out.weight[:, 4:8] = 0
        net.up.weight[::3], net.up.bias[::3], net.down.weight[:, ::3] = 0, 0, 0
    return net.double(), torch.randn(2, 5, 16, dtype=torch.float64)


NETS = (mlp, conv, batch_norm, heads)


def zeros_of(net: nn.Module) -> dict[str, Tensor]:
    """Where the parameters are zero."""
    return {name: p.detach() == 0 for name, p in net.named_parameters()}


def step_(net: nn.Module, x: Tensor, optimizer: Optimizer, held: dict[str, Tensor] | None = None) -> float:
    """One step on a loss with targets; what is held at zero is set to zero after it."""
    out = net(x)
    target = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    loss = nn.functional.mse_loss(out, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if held is not None:
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.masked_fill_(held[name], 0)
    return float(loss.detach())
