"""Time of one training step of the bundled prior's network in PyTorch: what `cuda train brain-mr 64` is compared with.

The network is diffusers' UNet2DModel of that configuration, written out with the same names (checked against the bundled weights
with --check), so that nothing but PyTorch is needed. A step is what a training script does: bfloat16 autocast, mean squared error,
gradient clipping, fused AdamW and a moving average of the numbers, on images and noise that are on the device already.

    python train_step.py                       eager channels-last, then torch.compile
    python train_step.py --check WEIGHTS VECTORS
    python train_step.py --gradients WEIGHTS   how far its gradients are from f64 in every precision
"""

import argparse
import math
import time

import torch
import torch.nn.functional as F
from torch import nn

CHANNELS, EMBEDDING, HEAD, GROUPS = (24, 48, 96, 160), 96, 32, 8


class Resnet(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inputs, eps=1e-5)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(EMBEDDING, 2 * outputs)
        self.norm2 = nn.GroupNorm(GROUPS, outputs, eps=1e-5)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, embedding):
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time_emb_proj(F.silu(embedding))[:, :, None, None].chunk(2, 1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.conv_shortcut(x) + h


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.group_norm = nn.GroupNorm(GROUPS, channels, eps=1e-5)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.group_norm(x).reshape(b, c, h * w).transpose(1, 2)
        q, k, v = (f(y).reshape(b, h * w, c // HEAD, HEAD).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return x + self.to_out[0](y).transpose(1, 2).reshape(b, c, h, w)


class Sampling(nn.Module):
    """Halves or doubles the image."""

    def __init__(self, channels, down):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if down else 1, padding=1)

    def forward(self, x):
        return self.conv(x if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    def __init__(self, pairs, attention, name=None, down=False):
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(i, o) for i, o in pairs])
        if attention:
            self.attentions = nn.ModuleList([Attention(pairs[-1][1]) for _ in range(attention)])
        if name:
            setattr(self, name, nn.ModuleList([Sampling(pairs[-1][1], down)]))


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        c, last = CHANNELS, len(CHANNELS) - 1
        self.time_embedding = nn.ModuleDict({"linear_1": nn.Linear(c[0], EMBEDDING), "linear_2": nn.Linear(EMBEDDING, EMBEDDING)})
        self.conv_in = nn.Conv2d(1, c[0], 3, padding=1)
        downs = [
            Level([(c[max(i - 1, 0)], c[i])], int(i == last), "downsamplers" if i < last else None, True) for i in range(len(c))
        ]
        self.down_blocks = nn.ModuleList(downs)
        self.mid_block = Level([(c[-1], c[-1])] * 2, 1)
        ups = []
        for k in range(len(c)):
            i = last - k
            first = c[min(i + 1, last)] + c[i]
            pairs = [(first, c[i]), (c[i] + c[max(i - 1, 0)], c[i])]
            ups.append(Level(pairs, 2 * int(i == last), "upsamplers" if i > 0 else None))
        self.up_blocks = nn.ModuleList(ups)
        self.conv_norm_out = nn.GroupNorm(GROUPS, c[0], eps=1e-5)
        self.conv_out = nn.Conv2d(c[0], 1, 3, padding=1)

    def forward(self, x, t):
        half = CHANNELS[0] // 2
        angles = t.float()[:, None] * torch.exp(-math.log(10000) * torch.arange(half, device=t.device) / half)
        e = torch.cat([angles.cos(), angles.sin()], 1).to(self.conv_in.weight.dtype)
        e = self.time_embedding["linear_2"](F.silu(self.time_embedding["linear_1"](e)))
        h = self.conv_in(x)
        skips = [h]
        for level in self.down_blocks:
            h = level.resnets[0](h, e)
            if hasattr(level, "attentions"):
                h = level.attentions[0](h)
            skips.append(h)
            if hasattr(level, "downsamplers"):
                h = level.downsamplers[0](h)
                skips.append(h)
        mid = self.mid_block
        h = mid.resnets[1](mid.attentions[0](mid.resnets[0](h, e)), e)
        for level in self.up_blocks:
            for j, resnet in enumerate(level.resnets):
                h = resnet(torch.cat([h, skips.pop()], 1), e)
                if hasattr(level, "attentions"):
                    h = level.attentions[j](h)
            if hasattr(level, "upsamplers"):
                h = level.upsamplers[0](h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


def check(weights, vectors):
    from safetensors.torch import load_file

    network, cases = load(weights), load_file(vectors)
    for i in range(4):
        with torch.no_grad():
            y = network(cases[f"x.{i}"], cases[f"t.{i}"])
        print("off by", ((y - cases[f"y.{i}"]).norm() / cases[f"y.{i}"].norm()).item())


def load(weights):
    from safetensors.torch import load_file

    network = Unet()
    network.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return network


def gradients(weights):
    """Errors of the gradient relative to its length: of all numbers, and of the worst tensor, on two images of 96 x 64."""
    torch.manual_seed(1)
    x, v, t = torch.randn(2, 1, 96, 64), torch.randn(2, 1, 96, 64), torch.tensor([3.0, 700.0])

    def of(device, dtype, autocast=False):
        network = load(weights).to(device, dtype)
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            y = network(x.to(device, dtype), t.to(device))
        (y.to(dtype) * v.to(device, dtype)).sum().backward()
        return {name: p.grad.double().cpu() for name, p in network.named_parameters()}

    exact = of("cpu", torch.float64)
    whole = sum(g.square().sum() for g in exact.values()).sqrt()
    for name, tf32, autocast in (("float32", False, False), ("TF32", True, False), ("bfloat16 autocast", True, True)):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        got = of("cuda", torch.float32, autocast)
        off = sum((got[n] - g).square().sum() for n, g in exact.items()).sqrt() / whole
        worst, tensor = max((((got[n] - g).norm() / g.norm()).item(), n) for n, g in exact.items())
        print(f"PyTorch {name}: gradient {off:.1e}, worst {worst:.1e} ({tensor})")


def measure(compiled, batch):
    torch.manual_seed(0)
    network = Unet().cuda().to(memory_format=torch.channels_last)
    averages = [p.detach().clone() for p in network.parameters()]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, weight_decay=0.01, fused=True)
    forward = torch.compile(network) if compiled else network
    images = torch.randn(batch, 1, 256, 256, device="cuda").to(memory_format=torch.channels_last)
    noise = torch.randn_like(images)
    t = (torch.arange(batch, device="cuda") * 1000 // batch).float()

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            y = forward(images, t)
        loss = F.mse_loss(y.float(), noise)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        torch._foreach_lerp_(averages, list(network.parameters()), 1e-3)

    start = time.time()
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    first = time.time() - start
    times = []
    for _ in range(5):
        start = time.time()
        for _ in range(10):
            step()
        torch.cuda.synchronize()
        times.append((time.time() - start) / 10)
    memory = torch.cuda.max_memory_allocated() >> 20
    name = "torch.compile" if compiled else "eager"
    print(f"PyTorch {torch.__version__} bf16 channels-last {name} batch {batch}: step {1e3 * sorted(times)[2]:.2f} ms; first five {first:.1f} s, {memory} MiB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", nargs=2, metavar=("WEIGHTS", "VECTORS"))
    parser.add_argument("--gradients", metavar="WEIGHTS")
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.check:
        check(*arguments.check)
    elif arguments.gradients:
        gradients(arguments.gradients)
    else:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        measure(False, arguments.batch)
        torch.cuda.reset_peak_memory_stats()
        measure(True, arguments.batch)
