"""Computes `prior_io.safetensors` anew for other weights: inputs, time steps and cotangents stay, outputs and products are diffusers'.

    python make_prior.py ../../datasets/data/brain-mr prior_io.safetensors

Needs torch, diffusers, safetensors.
"""

import sys

import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

model, io = sys.argv[1:]
network = UNet2DModel.from_pretrained(model, torch_dtype=torch.float32).eval()
cases = load_file(io)
for i in range(sum(name.startswith("x.") for name in cases)):
    x = cases[f"x.{i}"].requires_grad_(True)
    y = network(x, cases[f"t.{i}"]).sample
    (product,) = torch.autograd.grad(y, x, cases[f"v.{i}"])
    cases[f"x.{i}"], cases[f"y.{i}"], cases[f"vjp.{i}"] = x.detach(), y.detach(), product
save_file({name: value.contiguous() for name, value in cases.items()}, io)
