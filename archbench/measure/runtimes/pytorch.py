"""PyTorch itself with a quantised network, eager or compiled, by torchao, and any network compiled ahead of time.

torchao's recipes for linear layers replace their weights; `int8-static` is its export path (pt2e) with the x86
quantiser of inductor, lowered to oneDNN's int8 kernels, which is the one that takes convolutions.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import torch
import torch._inductor
from torch import Tensor, nn

from archbench.measure import compiler
from archbench.measure.runtimes import Engine, Wanted, size_of
from archbench.model.errors import UnsupportedError

_FP8_FROM = (8, 9)
"""Compute capability of the first GPUs (Ada, Hopper) that multiply fp8."""
_PRODUCTS = ("aten.conv", "aten.linear", "aten.addmm", "aten.mm", "aten.matmul", "aten.bmm", "mkldnn.")


def prepare(module: nn.Module, example: Tensor, wanted: Wanted) -> Engine:
    """See `archbench.measure.runtimes.Prepare`. Weights are in the cell's precision; threads are torch's."""
    told = {"version": str(torch.__version__), "threads": str(torch.get_num_threads())}
    told["precision"] = wanted.cell.precision
    if wanted.cell.runtime == "aot-inductor":
        return _ahead_of_time(module, example, wanted, told)
    import torchao

    static = wanted.cell.quantize == "int8-static"
    quantized = _statically(module, example, wanted) if static else _of_linear(module, wanted)
    call: Any = quantized
    if wanted.cell.compile_mode != "off":
        # Frozen, for only a weight that is a constant of the graph is packed for int8 kernels.
        call = compiler.compile_module(quantized, wanted.cell.compile_mode, freeze=static)
    elif static:
        call = quantized = _lowered(quantized, example)
    return Engine(call=call, told={**told, "torchao": torchao.__version__}, quantized=_counted(quantized))


def _ahead_of_time(module: nn.Module, example: Tensor, wanted: Wanted, told: dict[str, str]) -> Engine:
    """AOTInductor: the exported network compiled into a package that runs without dynamo."""
    package, quantized, quantizes = wanted.folder / "model.pt2", None, wanted.cell.quantize != "off"
    if not package.exists():
        if quantizes:
            module = _statically(module, example, wanted)
            quantized = _counted(module)
        program = torch.export.export(module, (example,))
        frozen = {"freezing": quantizes}  # only constants are packed for int8 kernels
        torch._inductor.aoti_compile_and_package(program, package_path=str(package), inductor_configs=frozen)
    call = torch._inductor.aoti_load_package(str(package))
    return Engine(call=call, told=told, artifact_bytes=size_of(package), quantized=quantized)


def _of_linear(module: nn.Module, wanted: Wanted) -> nn.Module:
    from torchao import quantization as ao

    if wanted.cell.quantize == "fp8" and torch.cuda.get_device_capability() < _FP8_FROM:
        raise UnsupportedError("fp8 needs a GPU of compute capability 8.9 or newer")
    recipes: dict[str, Any] = {
        "int8-dynamic": ao.Int8DynamicActivationInt8WeightConfig,
        "int8-weight-only": ao.Int8WeightOnlyConfig,
        "fp8": ao.Float8DynamicActivationFloat8WeightConfig,
    }
    quantized = copy.deepcopy(module)
    # Else it would set inductor's switches for the whole process, which are the compile mode's to choose.
    ao.quantize_(quantized, recipes[wanted.cell.quantize](set_inductor_config=False))
    return quantized


def _statically(module: nn.Module, example: Tensor, wanted: Wanted) -> nn.Module:
    """The network exported and calibrated, each tensor quantised and dequantised around what is to run in int8."""
    from torchao.quantization.pt2e import quantize_pt2e
    from torchao.quantization.pt2e.observer import MinMaxObserver
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    usual = x86.get_default_x86_inductor_quantization_config()
    # Least and largest values, as the other quantisers take; its histograms take minutes for a hundred tensors.
    ranged = replace(usual.input_activation, observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=2**-12))
    quantizer = x86.X86InductorQuantizer().set_global(replace(usual, input_activation=ranged, output_activation=ranged))
    # Strictly, for the quantiser finds its patterns by the sources of nodes that only dynamo notes.
    exported: Any = torch.export.export(module, (example,), strict=True).module()
    observed = quantize_pt2e.prepare_pt2e(exported, quantizer)
    for batch in wanted.calibration():
        observed(batch)
    return cast(nn.Module, quantize_pt2e.convert_pt2e(observed))


def _lowered(quantized: nn.Module, example: Tensor) -> nn.Module:
    """With oneDNN's int8 kernels in place of the patterns that stand for them, so that it runs eagerly."""
    from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86

    lowered = lower_pt2e_quantized_to_x86(cast(torch.fx.GraphModule, quantized), (example,))
    for node in lowered.graph.nodes:  # its convolutions give channels_last, of which no view of other dimensions can be
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    lowered.recompile()
    return cast(nn.Module, lowered)


def _counted(quantized: nn.Module) -> tuple[int, int]:
    """How many of the convolutions and linear layers are quantised, and how many there are."""
    if not isinstance(quantized, torch.fx.GraphModule):
        layers = [one for one in quantized.modules() if isinstance(one, (nn.Linear, nn.modules.conv._ConvNd))]
        return sum(type(layer.weight.data) is not Tensor for layer in layers), len(layers)
    calls = [node for node in quantized.graph.nodes if node.op == "call_function"]
    lowered = sum("onednn.q" in str(node.target) for node in calls)
    products = [node for node in calls if str(node.target).startswith(_PRODUCTS)]
    marked = sum("dequantize" in str(getattr(node.args[0], "target", "")) for node in products)
    return (lowered or marked), lowered + len(products)
