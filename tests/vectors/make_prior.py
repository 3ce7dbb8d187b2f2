"""Computes the vectors of a bundled prior with diffusers: outputs and products with the transposed Jacobian.

    python make_prior.py ../../datasets/data/brain-mr prior_io.safetensors

Inputs, time steps and cotangents of a file that is there stay. Needs torch, diffusers, safetensors.
"""

import os
import sys

import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

model, io = sys.argv[1:]
network = UNet2DModel.from_pretrained(model, torch_dtype=torch.float32).eval()
channels, outputs = network.config.in_channels, network.config.out_channels
if os.path.exists(io):
    cases = load_file(io)
else:
    torch.manual_seed(len(io))
    cases = {}
    for i, t in enumerate([0.0, 250.5, 999.0]):
        cases |= {f"t.{i}": torch.tensor([t]), f"x.{i}": torch.randn(1, channels, 32, 48), f"v.{i}": torch.randn(1, outputs, 32, 48)}
for i in range(sum(name.startswith("x.") for name in cases)):
    x = cases[f"x.{i}"].requires_grad_(True)
    y = network(x, cases[f"t.{i}"]).sample
    (product,) = torch.autograd.grad(y, x, cases[f"v.{i}"])
    cases[f"x.{i}"], cases[f"y.{i}"], cases[f"vjp.{i}"] = x.detach(), y.detach(), product
save_file({name: value.contiguous() for name, value in cases.items()}, io)
