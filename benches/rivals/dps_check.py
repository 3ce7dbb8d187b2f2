"""How far a precision is from f64: outputs and vector-Jacobian products of the official network."""

import json
import os
import struct

import numpy as np
import torch
from dps_network import MODELS, autocast_again, build, embedded_by, name_of, streamline


def read_safetensors(path):
    kinds = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "I32": np.int32}
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        tensors[name] = torch.from_numpy(np.frombuffer(data[start:end], kinds[entry["dtype"]]).reshape(entry["shape"]).copy())
    return tensors


def write_safetensors(path, tensors):
    kinds = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64"}
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.detach().cpu().contiguous().numpy().tobytes()
        header[name] = dict(dtype=kinds[tensor.dtype], shape=list(tensor.shape), data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def check(dps, args, device, precisions):
    """Relative errors (2-norm) of the output and of v -> (d output / d x)^T v against the same network in f64."""
    size = MODELS[args.model]["image_size"]
    if not os.path.exists(args.check):
        torch.manual_seed(2)
        n = args.batch[0]
        made = dict(x=torch.randn(n, 3, size, size), t=torch.randint(0, 1000, (n,)), v=torch.randn(n, 6, size, size))
        write_safetensors(args.check, made)
    given = {name: tensor.to(device) for name, tensor in read_safetensors(args.check).items()}
    t = given["t"].reshape(-1).expand(given["x"].shape[0])
    results = {}
    for precision in ["f64"] + [p for p in precisions if p != "default"] + ["bf16 autocast"]:
        tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        model = build(dps, args.model, device, args.load)
        dtype = {"f64": torch.float64, "bf16": torch.bfloat16}.get(precision, torch.float32)
        embedding = dps.unet.timestep_embedding
        if precision in ("f64", "bf16"):  # in the others the official modules run as they are
            embedding = streamline(dps, model, dtype)
        if precision == "bf16 autocast":
            autocast_again(dps, model, device)
        x = given["x"].to(torch.float64 if precision == "f64" else torch.float32).requires_grad_()
        with embedded_by(dps, embedding), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16 autocast"):
            y = model(x.to(dtype), t)
            (vjp,) = torch.autograd.grad(y, x, given["v"].to(y.dtype))
        results[precision] = (y.detach().double(), vjp.detach().double())
        expected, expected_vjp = results["f64"]
        if precision == "f64":
            if args.write:
                write_safetensors(args.write, {name: given[name].cpu() for name in "xtv"} | dict(y=expected, vjp=expected_vjp))
            continue
        error = lambda a, b: float((a - b).norm() / b.norm())
        line = dict(check=args.check, model=args.model, precision=precision, device=name_of(device), torch=torch.__version__)
        y, vjp = results.pop(precision)
        print(json.dumps(line | dict(error=error(y, expected), vjp_error=error(vjp, expected_vjp))), flush=True)
