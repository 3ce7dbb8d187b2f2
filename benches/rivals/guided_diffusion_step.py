#!/usr/bin/env python3
"""Times one step of diffusion posterior sampling in PyTorch, the rival of our own: 4x super-resolution, random weights.

A step is everything that the sampling loop does: network, estimate of x0, residual through the operator, its norm, the gradient
with respect to x, ancestral update, noise.

  --mode official   the classes and the loop of the official DPS code, as they are (Chung et al., ICLR 2023)
  --mode best       the same network and step, as fast as PyTorch was made to go: parameters without gradients, fused attention,
                    no checkpointing, group norm without copies to f32, resampling as two matrix products, coefficients on the
                    device, one captured CUDA graph; with --compile also torch.compile
  --check FILE      instead of timing: outputs and vector-Jacobian products of given precision against f64

Needs torch, numpy and a checkout of github.com/DPS2022/diffusion-posterior-sampling (--code); nothing else of what that code
imports is used by a step. Prints one JSON line per configuration; everything else goes to stderr. FILE is a safetensors file
with x [n,3,h,w], t [n] and v [n,6,h,w]; it is made of random numbers if it does not exist.
"""

import argparse
import json
import os
import statistics
import time

import numpy as np
import torch
from dps_check import check
from dps_network import MODELS, autocast_again, build, embedded_by, name_of, official, streamline

DIFFUSION = dict(
    sampler="ddpm", steps=1000, noise_schedule="linear", model_mean_type="epsilon", model_var_type="learned_range",
    dynamic_threshold=False, clip_denoised=True, rescale_timesteps=False, timestep_respacing=1000,
)  # fmt: skip
SCALE, NOISE, FACTOR = 0.3, 0.05, 4


def operator_and_condition(dps, size, device):
    operator = dps.measurements.get_operator("super_resolution", in_shape=(1, 3, size, size), scale_factor=FACTOR, device=device)
    noiser = dps.measurements.get_noise("gaussian", sigma=NOISE)
    return operator, dps.condition_methods.get_conditioning_method("ps", operator, noiser, scale=SCALE).conditioning


def official_step(dps, model, sampler, condition, measurement, precision):
    """The body of `p_sample_loop`."""
    batch, device = measurement.shape[0], measurement.device

    def p_sample(x, t):
        if batch == 1:
            return sampler.p_sample(x=x, t=t, model=model)
        # DDPM.p_sample word for word; its `if t != 0` works for one image only.
        out = sampler.p_mean_variance(model, x, t)
        sample = out["mean"]
        noise = torch.randn_like(x)
        if t[0] != 0:
            sample += torch.exp(0.5 * out["log_variance"]) * noise
        return {"sample": sample, "pred_xstart": out["pred_xstart"]}

    def step(img, idx):
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            t = torch.tensor([idx] * batch, device=device)
            img = img.requires_grad_()
            out = p_sample(img, t)
            noisy = sampler.q_sample(measurement, t=t)
            img, distance = condition(x_t=out["sample"], measurement=measurement, noisy_measurement=noisy, x_prev=img, x_0_hat=out["pred_xstart"])
            img = img.detach_()
        distance.item()
        return img

    return step


def best_step(model, sampler, operator, measurement, size, dtype, layout):
    """The same arithmetic with the coefficients of all timesteps on the device: one function of tensors, without a wait."""
    device = measurement.device
    mean, variance = sampler.mean_processor, sampler.var_processor
    rows = [mean.sqrt_recip_alphas_cumprod, mean.sqrt_recipm1_alphas_cumprod, mean.posterior_mean_coef1, mean.posterior_mean_coef2,
            variance.posterior_log_variance_clipped, np.log(variance.betas)]  # fmt: skip
    table = torch.tensor(np.stack(rows, 1), dtype=torch.float32, device=device)
    eye = torch.eye(size, device=device).view(1, 1, size, size)
    down = operator.down_sample
    matrix = torch.transpose((eye.transpose(0, 2)[down.field_of_view[0]] * down.weights[0]).sum(0), 0, 2)[0, 0].contiguous()

    def step(img, t):
        x = img.detach().requires_grad_()
        given = x.to(dtype)
        if layout == "nhwc":
            given = given.contiguous(memory_format=torch.channels_last)
        eps, fraction = model(given, t).float().chunk(2, dim=1)
        a, b, c1, c2, low, high = table[t].unbind(1)
        a, b, c1, c2, low, high = (k.view(-1, 1, 1, 1) for k in (a, b, c1, c2, low, high))
        x0 = (a * x - b * eps).clamp(-1, 1)
        norm = torch.linalg.norm(measurement - matrix @ x0 @ matrix.T)
        (gradient,) = torch.autograd.grad(norm, x)
        with torch.no_grad():
            fraction = (fraction + 1) / 2
            deviation = torch.exp(0.5 * (fraction * high + (1 - fraction) * low))
            return c1 * x0 + c2 * x + deviation * torch.randn_like(x) - SCALE * gradient, norm

    return step, matrix


def clock(run, repeats, device):
    """Milliseconds of each of `repeats` runs."""
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        else:
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1e3)
    return times


def captured(run, device):
    """`run` as one CUDA graph, after the warm-up that capture asks for; `run` itself on a processor."""
    if device.type != "cuda":
        return run
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def measure(dps, args, device, mode, precision, batch, layout, compiled):
    size = MODELS[args.model]["image_size"]
    conv, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    if precision != "default":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.backends.cudnn.benchmark = mode == "best"
    try:
        model = build(dps, args.model, device, args.load)
        embedding = dps.unet.timestep_embedding
        if mode == "best":
            embedding = streamline(dps, model, torch.bfloat16 if precision == "bf16" else torch.float32)
        if layout == "nhwc":
            model = model.to(memory_format=torch.channels_last)
        sampler = dps.gaussian_diffusion.create_sampler(**DIFFUSION)
        operator, condition = operator_and_condition(dps, size, device)
        torch.manual_seed(1)
        measurement = operator.forward(torch.rand(batch, 3, size, size, device=device) * 2 - 1)
        measurement += NOISE * torch.randn_like(measurement)
        state = {"img": torch.randn(batch, 3, size, size, device=device), "idx": 600}
        if layout == "nhwc" and mode == "official":
            state["img"] = state["img"].contiguous(memory_format=torch.channels_last)
        if mode == "official":
            if precision == "bf16":
                autocast_again(dps, model, device)
            step = official_step(dps, model, sampler, condition, measurement, precision)

            def run():
                state["img"] = step(state["img"], state["idx"])
                state["idx"] -= 1

        else:
            network = torch.compile(model, mode="max-autotune-no-cudagraphs") if compiled else model
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            step, _ = best_step(network, sampler, operator, measurement, size, dtype, layout)
            t = torch.full((batch,), state["idx"], device=device)

            def body():
                img, norm = step(state["img"], t)
                state["img"].copy_(img)
                t.sub_(1)
                state["norm"] = norm

            with embedded_by(dps, embedding):
                run = captured(body, device)
        with embedded_by(dps, embedding):
            clock(run, args.warmup, device)
            times = sorted(clock(run, args.repeats, device))
        finite = bool(torch.isfinite(state["img"]).all())
        memory = round(torch.cuda.max_memory_allocated() / 2**20, 1) if device.type == "cuda" else None
        network_times = [float("nan")]
        if mode == "best":
            x = state["img"].to(dtype, memory_format=torch.channels_last if layout == "nhwc" else torch.contiguous_format)
            v = torch.randn(batch, 6, size, size, device=device, dtype=dtype)

            def pull_back():
                given = x.detach().requires_grad_()
                state["vjp"] = torch.autograd.grad(network(given, t), given, v)

            with embedded_by(dps, embedding):
                run = captured(pull_back, device)
                clock(run, args.warmup, device)
                network_times = clock(run, args.repeats, device)
        return dict(
            milliseconds=round(statistics.median(times), 4), p10=round(times[len(times) // 10], 4),
            p90=round(times[-1 - len(times) // 10], 4), repeats=len(times), finite=finite,
            network_and_vjp_milliseconds=round(statistics.median(network_times), 4) if mode == "best" else None, peak_memory_mib=memory,
        )  # fmt: skip
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = conv, matmul


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", required=True, help="checkout of the official DPS repository")
    parser.add_argument("--model", choices=MODELS, default="ffhq")
    parser.add_argument("--mode", choices=["official", "best", "both"], default="both")
    parser.add_argument("--best", action="store_true", help="the same as --mode best")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--precision", nargs="+", choices=["default", "fp32", "tf32", "bf16"], default=["bf16"])
    parser.add_argument("--layout", nargs="+", choices=["nchw", "nhwc"], default=["nchw", "nhwc"])
    parser.add_argument("--compile", action="store_true", help="time `best` with torch.compile too")
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--load", metavar="FILE.pt", help="weights instead of random ones")
    parser.add_argument("--save", metavar="FILE.pt", help="write the weights that are used, and the flags of the network beside them")
    parser.add_argument("--check", metavar="FILE", help="compare precisions on x, t, v of a safetensors file")
    parser.add_argument("--write", metavar="FILE", help="with --check: write x, t, v and the f64 output and product")
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    device = torch.device("cpu" if args.cpu or not torch.cuda.is_available() else "cuda")
    dps = official(args.code)
    if args.save:
        torch.save(build(dps, args.model, "cpu", args.load).state_dict(), args.save)
        with open(os.path.splitext(args.save)[0] + ".json", "w") as file:
            json.dump(MODELS[args.model], file)
    if args.check:
        return check(dps, args, device, args.precision)
    modes = ["best"] if args.best else ["official", "best"] if args.mode == "both" else [args.mode]
    for mode in modes:
        for batch in args.batch:
            for precision in args.precision:
                for layout in args.layout:
                    for compiled in [False, True] if args.compile and mode == "best" else [False]:
                        line = dict(mode=mode, model=args.model, batch=batch, precision=precision, layout=layout, compiled=compiled)
                        line |= dict(device=name_of(device), torch=torch.__version__)
                        try:
                            line |= measure(dps, args, device, mode, precision, batch, layout, compiled)
                        except Exception as error:  # one configuration that fails must not hide the others
                            line["error"] = f"{type(error).__name__}: {error}"[:300]
                        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
