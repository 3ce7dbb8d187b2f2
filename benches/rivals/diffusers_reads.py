"""Whether diffusers reads a model directory that this program wrote, and computes the same.

    recon train DATA -o model ...            # or any directory written by recon
    cargo run --release --example network_output -- model io.safetensors
    python diffusers_reads.py model io.safetensors

The example writes inputs `x.i`, levels `t.i` and outputs `y.i` of recon; this script loads the directory with
`UNet2DModel.from_pretrained` and `DDPMScheduler.from_pretrained`, computes the outputs and prints the largest difference.
Needs torch, diffusers, safetensors. Exits with 1 where they differ by more than 1e-5 of the norm (f32 on both sides).
"""

import sys

import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file

directory, vectors = sys.argv[1:3]
network = UNet2DModel.from_pretrained(directory, torch_dtype=torch.float32).eval()
scheduler = DDPMScheduler.from_pretrained(directory)
print(f"{sum(p.numel() for p in network.parameters())} numbers, {scheduler.config.prediction_type}, "
      f"{scheduler.config.num_train_timesteps} timesteps")
cases, worst = load_file(vectors), 0.0
labels = {"class_labels": cases["label"].long()} if "label" in cases else {}
for i in range(sum(name.startswith("x.") for name in cases)):
    with torch.no_grad():
        y = network(cases[f"x.{i}"], cases[f"t.{i}"], **labels).sample
    difference = ((y - cases[f"y.{i}"]).norm() / y.norm()).item()
    worst = max(worst, difference)
    print(f"case {i}: norm {y.norm().item():.4f}, difference {difference:.2e} of it")
sys.exit(0 if worst < 1e-5 else 1)
