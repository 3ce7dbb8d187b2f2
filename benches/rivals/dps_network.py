"""The networks of the official DPS code (github.com/DPS2022/diffusion-posterior-sampling), with random weights."""

import contextlib
import importlib
import os
import sys
import types

import numpy as np
import torch
import torch.nn.functional as F

COMMON = dict(learn_sigma=True, num_heads=4, use_scale_shift_norm=True, resblock_updown=True)
MODELS = {
    "ffhq": dict(COMMON, image_size=256, num_channels=128, num_res_blocks=1, attention_resolutions="16", num_head_channels=64),
    "imagenet256": dict(COMMON, image_size=256, num_channels=256, num_res_blocks=2, attention_resolutions="32,16,8", num_head_channels=64),
    "tiny": dict(COMMON, image_size=32, num_channels=32, num_res_blocks=1, attention_resolutions="16", num_head_channels=16, channel_mult="1,2"),
}


def official(code):
    """The modules of the official code; packages that it imports for plots and other operators are replaced where absent."""

    class Absent(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    for name in ["matplotlib", "matplotlib.pyplot", "tqdm", "tqdm.auto", "scipy", "torchvision", "motionblur", "motionblur.motionblur", "yaml", "packaging"]:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = Absent(name)
            sys.modules[name].__path__ = []
    if isinstance(sys.modules["torchvision"], Absent):
        sys.modules["torchvision"].torch = torch  # `from torchvision import torch`
    if isinstance(sys.modules["packaging"], Absent):
        sys.modules["packaging"].version = types.SimpleNamespace(parse=lambda text: tuple(int(n) for n in text.split("+")[0].split(".")[:2]))
    sys.path.insert(0, os.path.abspath(code))
    names = ["unet", "nn", "gaussian_diffusion", "measurements", "condition_methods"]
    return types.SimpleNamespace(**{name: importlib.import_module("guided_diffusion." + name) for name in names})


def build(dps, name, device, load):
    """The network with random weights, or with those of `load`. Layers that training starts at zero are random too: a network
    of zeros would have no gradient, and arithmetic on zeros draws less power and runs at a higher clock."""
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr):
        model = dps.unet.create_model(**MODELS[name])
    if load:
        model.load_state_dict(torch.load(load, map_location="cpu", weights_only=True))
    else:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1 and not parameter.any():
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model.to(device).eval()


def streamline(dps, model, dtype):
    """Replaces, in this model only, what costs time or rounds to f32 on the way."""

    def attention(self, x):
        b, c, *size = x.shape
        x = x.reshape(b, c, -1)
        qkv = self.qkv(self.norm(x)).view(b, self.num_heads, 3, c // self.num_heads, -1)
        q, k, v = (part.transpose(-1, -2) for part in qkv.unbind(2))
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, -1)
        return (x + self.proj_out(h)).reshape(b, c, *size)

    def norm(self, x):
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    model.requires_grad_(False).to(dtype)
    model.dtype = dtype
    device = next(model.parameters()).device
    half = model.model_channels // 2
    frequencies = torch.exp(-np.log(10000.0) * torch.arange(half, dtype=torch.float32) / half).to(device)

    def embedding(timesteps, dim, max_period=10000):
        angles = timesteps[:, None].float() * frequencies
        return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1).to(model.time_embed[0].weight.dtype)

    for module in model.modules():
        if isinstance(module, dps.unet.AttentionBlock):
            module.forward = types.MethodType(attention, module)
        elif isinstance(module, torch.nn.GroupNorm):
            module.forward = types.MethodType(norm, module)
        elif isinstance(module, torch.nn.Linear) and dtype == torch.bfloat16:
            module.float()  # vectors of the noise level: they cost nothing and the embedding needs the digits
    return embedding


def autocast_again(dps, model, device):
    """The official attention is computed anew in the backward pass, on a thread that does not know autocast's type."""

    def forward(self, x):
        with torch.autocast(device.type, torch.bfloat16):
            return type(self)._forward(self, x)

    for module in model.modules():
        if isinstance(module, dps.unet.AttentionBlock):
            module._forward = types.MethodType(forward, module)


@contextlib.contextmanager
def embedded_by(dps, embedding):
    kept, dps.unet.timestep_embedding = dps.unet.timestep_embedding, embedding
    try:
        yield
    finally:
        dps.unet.timestep_embedding = kept


def name_of(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
