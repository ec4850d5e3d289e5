"""Plain hand-written timing loops, as one would write them without archbench: of which nothing is imported here."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
import torchvision

Step = Callable[[], object]

FEWEST = 3
SPIN_CYCLES = 1_000_000


def network(name: str, device: torch.device) -> tuple[torch.nn.Module, torch.Tensor]:
    """A torchvision network with random weights, and one image."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name.removeprefix("torchvision:"), weights=None).eval().to(device)
    return model, torch.randn(1, 3, 224, 224, device=device)


def eager(model: torch.nn.Module, image: torch.Tensor) -> Step:
    """One forward pass."""

    def step() -> object:
        with torch.inference_mode():
            return model(image)

    return step


def graphed(model: torch.nn.Module, image: torch.Tensor) -> Step:
    """The same, recorded once as a CUDA graph and replayed: three warm-up passes on a side stream come first."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.inference_mode():
        for _ in range(3):
            model(image)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        model(image)
    return graph.replay


def latency(step: Step, seconds: float, device: torch.device) -> float:
    """Median over steps that are each waited for."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < FEWEST:
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times)


def behind_backlog(step: Step, seconds: float) -> float:
    """Median of the step between events, each queued while the GPU spins, so that it finds the whole step waiting."""
    spin, start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(3))  # type: ignore[no-untyped-call]
    cycles = SPIN_CYCLES
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < FEWEST:
        torch.cuda.synchronize()
        torch.cuda._sleep(cycles)
        spin.record()
        start.record()
        step()
        stop.record()
        in_time = not spin.query()
        stop.synchronize()
        if in_time:
            times.append(start.elapsed_time(stop) / 1e3)
        else:
            cycles *= 2  # the spin was too short: what was measured contains gaps
        if cycles > 2**40:
            raise RuntimeError("no spin outlasts the launching of this step: it waits for the GPU itself")
    return median(times)


def onnxruntime(model: torch.nn.Module, image: torch.Tensor, threads: int, folder: str) -> Step:
    """A session of ONNX Runtime on the exported network, an array in and an array out."""
    import onnxruntime as ort

    program = torch.onnx.export(model, (image,), dynamo=True, verbose=False)
    assert program is not None
    program.save(f"{folder}/bare.onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(f"{folder}/bare.onnx", options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, feed)


def openvino(model: torch.nn.Module, image: torch.Tensor, threads: int, folder: str) -> Step:
    """A request of OpenVINO's on the converted network, in fp32 as it is not by itself on a CPU with bf16."""
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    converted = ov.convert_model(torch.export.export(model, (image,)))
    request = ov.Core().compile_model(converted, "CPU", settings).create_infer_request()
    array = image.numpy()
    return lambda: request.infer([array], share_inputs=True)


def aot_inductor(model: torch.nn.Module, image: torch.Tensor, threads: int, folder: str) -> Step:
    """A package of AOTInductor's, loaded again."""
    import torch._inductor

    with torch.no_grad():
        program = torch.export.export(model, (image,))
        torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/bare.pt2")
    run = torch._inductor.aoti_load_package(f"{folder}/bare.pt2")

    def step() -> object:
        with torch.inference_mode():
            return run(image)

    return step


RUNTIMES = {"onnxruntime": onnxruntime, "openvino": openvino, "aot-inductor": aot_inductor}
"""Each by its own API."""
