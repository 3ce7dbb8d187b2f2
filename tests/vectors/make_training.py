"""Makes the directory `training`: a tiny UNet2DModel of diffusers, the gradient of its loss, and what five steps of AdamW make of it.

    python make_training.py .

Needs torch, diffusers, safetensors. Everything is computed in float64 and stored in float32. Gradients, numbers and averages are
stored under the names of the network's tensors, so that they are read as if they were its weights.
"""

import copy
import json
import pathlib
import sys

import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

OUT = pathlib.Path(sys.argv[1]) / "training"
SETTINGS = dict(
    sample_size=8,
    in_channels=2,
    out_channels=1,
    layers_per_block=1,
    block_out_channels=(8, 12),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    norm_num_groups=4,
    attention_head_dim=6,
    resnet_time_scale_shift="scale_shift",
    time_embedding_dim=16,
    num_class_embeds=3,
)
# The bias of the keys has no influence on the output. With an epsilon above the rounding of its gradient it stays where it is.
UPDATE = dict(lr=2e-3, betas=(0.9, 0.99), eps=1e-4, weight_decay=0.05)
CLIP, DECAY, STEPS, BATCH = 0.5, 0.9, 5, 3


def randomise(network, generator):
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.copy_(1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise)
            elif "class_embedding" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return network.double()


def save(name, tensors):
    save_file({key: value.detach().float().contiguous() for key, value in tensors.items()}, OUT / f"{name}.safetensors")


OUT.mkdir(exist_ok=True)
generator = torch.Generator().manual_seed(3)
network = randomise(UNet2DModel(**SETTINGS), generator)
network.save_config(OUT)
save("numbers", dict(network.named_parameters()))
average = copy.deepcopy(network)
optimiser = torch.optim.AdamW(network.parameters(), **UPDATE)
batches, losses, norms = {}, [], []
for step in range(STEPS):
    x = torch.randn(BATCH, 2, 8, 8, generator=generator)
    target = torch.randn(BATCH, 1, 8, 8, generator=generator)
    t = torch.tensor([3 + 10 * step, 400, 999 - 7 * step])
    labels = torch.tensor([step % 3, 2, 0])
    batches |= {f"x.{step}": x, f"target.{step}": target, f"t.{step}": t, f"labels.{step}": labels}
    output = network(x.double(), t, class_labels=labels).sample
    loss = torch.nn.functional.mse_loss(output, target.double())
    optimiser.zero_grad()
    loss.backward()
    losses.append(loss.detach())
    if step == 0:
        save("gradient", {name: parameter.grad for name, parameter in network.named_parameters()})
        batches["output.0"] = output
    norms.append(torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP))
    optimiser.step()
    with torch.no_grad():
        for a, w in zip(average.parameters(), network.parameters()):
            a.lerp_(w, 1 - DECAY)
    if step in (0, STEPS - 1):
        save(f"numbers_{step + 1}", dict(network.named_parameters()))
save("average_5", dict(average.named_parameters()))
batches |= {"loss": torch.stack(losses), "norm": torch.stack(norms)}
save("batches", batches)
(OUT / "settings.json").write_text(json.dumps(UPDATE | dict(clip=CLIP, average_decay=DECAY), indent=1) + "\n")
