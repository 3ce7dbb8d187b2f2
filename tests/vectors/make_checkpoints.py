"""Makes the checkpoints and vectors `made_*` with the reference implementations themselves.

    git clone https://github.com/NVlabs/edm
    git clone https://github.com/openai/guided-diffusion
    python make_checkpoints.py edm guided-diffusion .

Needs torch, numpy, safetensors. Weights are random, of a scale at which no layer is idle.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

EDM, GUIDED, OUT = (pathlib.Path(argument) for argument in sys.argv[1:4])
sys.path[:0] = [str(EDM), str(GUIDED)]

from training import networks  # noqa: E402
from guided_diffusion import script_util  # noqa: E402


def randomise(network, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                is_gain = name.endswith("weight")
                parameter.copy_(1 + 0.1 * noise if is_gain else 0.1 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            # Files hold float16, which halves them.
            parameter.copy_(parameter.half().float())
    return network.eval()


def halved(network):
    trained = {name for name, _ in network.named_parameters()}
    return {name: value.half() if name in trained else value for name, value in network.state_dict().items()}


def record(name, call, channels, outputs, sigmas, scale, side=32):
    """Cases of one image each: a noisy image, the level, the output, a cotangent, its pull-back."""
    tensors = {}
    generator = torch.Generator().manual_seed(len(name))
    for i, t in enumerate(sigmas):
        x = torch.randn(1, channels, side, side, generator=generator) * scale(t)
        x.requires_grad_(True)
        level = torch.tensor([t])
        y = call(x, level)
        v = torch.randn(1, outputs, side, side, generator=generator)
        (vjp,) = torch.autograd.grad(y, x, v)
        case = dict(x=x, t=level, y=y, v=v, vjp=vjp)
        tensors |= {f"{key}.{i}": value.detach().clone().contiguous() for key, value in case.items()}
    save_file(tensors, OUT / f"{name}_io.safetensors")


def edm(name, precond, classes, tensors=None, **arguments):
    """`classes[i]` is the class of the network the vectors are of, or None."""
    torch.manual_seed(0)
    network = randomise(getattr(networks, precond)(**arguments), seed=len(name))
    torch.save(dict(ema=halved(network)), OUT / f"{name}.pt")
    (OUT / f"{name}.json").write_text(json.dumps(dict(precond=precond, **arguments), indent=1))
    labels = arguments.get("label_dim", 0)
    for label in classes:
        one_hot = None if label is None else torch.eye(labels)[[label]]
        channels = arguments["img_channels"]
        suffix = "" if label is None else f"_class{label}"
        call = lambda x, t: network(x, t, one_hot)
        record(name + suffix, call, channels, channels, [0.03, 0.7, 30.0], lambda s: (0.25 + s * s) ** 0.5, arguments["img_resolution"])


def guided(name, classes, **flags):
    torch.manual_seed(0)
    defaults = script_util.model_and_diffusion_defaults() | dict(use_scale_shift_norm=False)
    settings = defaults | flags
    model, _ = script_util.create_model_and_diffusion(**settings)
    network = randomise(model, seed=len(name))
    torch.save(halved(network), OUT / f"{name}.pt")
    (OUT / f"{name}.json").write_text(json.dumps(settings, indent=1))
    for label in classes:
        outputs = 6 if settings["learn_sigma"] else 3
        suffix = "" if label is None else f"_class{label}"
        call = lambda x, t: network(x, t, *([] if label is None else [torch.tensor([label])]))
        record(name + suffix, call, 3, outputs, [0.0, 421.0, 999.0], lambda t: 1.0, 16)


# The tensors are kept small: every width is 32 or 64, images are 16 x 16.
small = dict(img_resolution=16, model_channels=16, channel_mult=[2, 4], num_blocks=1, attn_resolutions=[8], dropout=0.0)
dhariwal = dict(small, model_type="DhariwalUNet", channel_mult_emb=2)
song = dict(small, model_type="SongUNet", channel_mult_emb=2)

edm("made_dhariwal_classes", "EDMPrecond", [None, 4], img_channels=3, label_dim=5, sigma_data=0.3, **dict(dhariwal, channel_mult=[2, 8], augment_dim=9))
edm("made_dhariwal_iddpm", "iDDPMPrecond", [None], img_channels=1, **dhariwal)
edm("made_song_classes", "EDMPrecond", [None, 2], img_channels=1, label_dim=3, **dict(song, channel_mult_noise=1))
fir = dict(resample_filter=[1, 3, 3, 1], channel_mult_noise=2, embedding_type="fourier")
edm("made_song_ve", "VEPrecond", [None], img_channels=1, **dict(song, encoder_type="residual", **fir))
edm("made_song_skip", "VPPrecond", [None], img_channels=1, **dict(song, encoder_type="skip", decoder_type="skip", resample_filter=[1, 3, 3, 1]))
edm("made_song_plain", "VEPrecond", [None], img_channels=1, **dict(song, encoder_type="residual", decoder_type="skip"))

flags = dict(image_size=16, num_channels=32, num_res_blocks=1, channel_mult="1,2", attention_resolutions="8")
guided("made_guided_legacy", [None], **flags, num_head_channels=16)
guided("made_guided_new", [5], **flags, num_heads=1, num_heads_upsample=2, use_new_attention_order=True, class_cond=True, use_scale_shift_norm=True, resblock_updown=True)
