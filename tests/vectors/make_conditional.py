"""Makes `diffusers_tiny_conditional/`: a diffusers network that is shown a low-resolution image, and what it denoises.

    python make_conditional.py .

Needs torch, diffusers, safetensors. Weights are random, of a scale at which no layer is idle. In `io.safetensors`, case `i` holds the noisy
image `x.i = x0 + sigma z` and the condition `c.i` in data units, the time step `t.i`, and in data units too the denoised image `y.i`, the
one with the condition dropped `none.i`, a cotangent `v.i` and `vjp.i` = (dy/dx)^T v.
"""

import json
import pathlib
import sys

import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import save_file

OUT = pathlib.Path(sys.argv[1]) / "diffusers_tiny_conditional"
SIZE = (16, 24)

network = UNet2DModel(
    sample_size=16,
    in_channels=2,
    out_channels=1,
    layers_per_block=1,
    block_out_channels=(8, 16),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    norm_num_groups=4,
    attention_head_dim=8,
).eval()
generator = torch.Generator().manual_seed(5)
with torch.no_grad():
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim < 2:
            parameter.copy_(1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise)
        else:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        # The file holds float16, which halves them.
        parameter.copy_(parameter.half().float())
scheduler = DDPMScheduler()
network.save_config(OUT)
scheduler.save_config(OUT)
save_file({name: value.half() for name, value in network.state_dict().items()}, OUT / "diffusion_pytorch_model.safetensors")
settings = {
    "condition": {"kind": "low-resolution", "factor": 2, "augmentation": 0.0},
    "range": [-1, 1],
    "training_voxel_mm": [0.8, 0.9],
    "complex": False,
    "unconditional_dropout": 0.1,
}
(OUT / "recon.json").write_text(json.dumps(settings) + "\n")


def denoise(x, condition, t):
    """On [-1, 1]: the noisy image of the variance-preserving process, then the condition; epsilon; the scheduler's own x0."""
    abar = scheduler.alphas_cumprod[t]
    noisy = (2 * x - 1) * abar.sqrt()
    epsilon = network(torch.cat([noisy, condition], 1), t).sample
    pixels = (noisy - (1 - abar).sqrt() * epsilon) / abar.sqrt()
    return (pixels + 1) / 2


tensors = {}
for i, t in enumerate([1, 130, 640]):
    abar = scheduler.alphas_cumprod[t]
    sigma = ((1 - abar) / abar).sqrt() / 2
    clean, c = (0.5 + 0.3 * torch.randn(2, 1, *SIZE, generator=generator) for _ in range(2))
    x = (clean + sigma * torch.randn(2, 1, *SIZE, generator=generator)).requires_grad_(True)
    y = denoise(x, 2 * c - 1, t)
    v = torch.randn(2, 1, *SIZE, generator=generator)
    (vjp,) = torch.autograd.grad(y, x, v)
    none = denoise(x, torch.zeros_like(c), t)
    case = dict(x=x, c=c, t=torch.tensor([float(t)]), y=y, none=none, v=v, vjp=vjp)
    tensors |= {f"{key}.{i}": value.detach().clone().contiguous() for key, value in case.items()}
save_file(tensors, OUT / "io.safetensors")
