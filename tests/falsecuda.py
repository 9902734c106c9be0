"""A CUDA device that is not there: its tensors say cuda:0 and compute on the CPU, under CUDA's rules.

    with false_cuda() as ran: ...

Inside, `torch.cuda.is_available()` is true, and every operator is looked at before it runs:
- tensors of two devices in one operator raise `DeviceError`, but for copies, a CPU number (0-dim) in a pointwise
  operator, and CPU positions that index a tensor of the device;
- so does a generator of another device than the numbers that it draws;
- `.numpy()` of a tensor on the device raises TypeError.
`ran['cuda']`, `ran['cpu']` and `ran['meta']` count the operators by name. A random number of the device comes from the
CPU's default generator, so that both devices give the same results.
"""
import collections, contextlib, types
import torch
import torch._dynamo # on first use it looks through torch.cuda, and stumbles over functions that are not its own
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map

aten = torch.ops.aten
CUDA = torch.device('cuda:0')
INNER = 'falsecuda' # the device that torch's C++ code sees
HOOKS = {backend_registration: ('_setup_privateuseone_for_python_backend', '_DummyBackendModule'),
         torch._C: ('_ensureCUDADeviceGuardSet', '_set_only_lift_cpu_tensors', '_disabled_torch_function_impl')}
MISSING = [name for where, names in HOOKS.items() for name in names if not hasattr(where, name)]

class DeviceError(RuntimeError): "What CUDA would refuse."

def is_cuda(device): # a device, text, number or None
    return device is not None and (isinstance(device, int) or torch.device(device).type in ('cuda', INNER))

class OnDevice(torch.Tensor):
    "A tensor of the false device: a shell around a tensor of the CPU."
    @staticmethod
    def __new__(cls, inner):
        shape = dict(strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype)
        with torch.inference_mode(False):
            shell = torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=torch.device(INNER, 0), **shape)
        shell.inner = inner
        return shell

    device, is_cuda, is_cpu = (property(lambda self, v=v: v) for v in (CUDA, True, False))
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None): return perform(func, args, kwargs or {})
    def get_device(self): return 0
    def cuda(self, *_, **__): return self
    def to(self, *args, **kwargs):
        alone = len(args) == 1 and not kwargs and isinstance(args[0], (str, int, torch.device))
        return self if alone and is_cuda(args[0]) else super().to(*args, **kwargs)
    def __repr__(self, **_): return repr(self.inner.detach())[:-1] + ", device='cuda:0')"
    def __format__(self, spec): return format(self.item(), spec) if self.dim() == 0 else repr(self)
    def tolist(self): return self.cpu().tolist()
    def numpy(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
    def __array__(self, *_, **__): return self.numpy()

    def __deepcopy__(self, memo):
        if id(self) in memo: return memo[id(self)]
        with torch.no_grad(): new = self.detach().clone()
        if isinstance(self, torch.nn.Parameter): new = torch.nn.Parameter(new, self.requires_grad)
        memo[id(self)] = new
        return new

GENERATORS = {} # those of the device by their address, kept so that no other gets it
def of_device(g): return isinstance(g, torch._C.Generator) and g._cdata in GENERATORS

def inside(t): return t.inner if isinstance(t, OnDevice) else t

# What CUDA allows beside tensors of one device
def packets(*names): return {getattr(aten, n) for n in names if hasattr(aten, n)}

COPIES = packets('copy_', 'copy', '_to_copy', 'set_')
INDEXING = packets('index', 'index_put', 'index_put_', '_index_put_impl_', '_unsafe_index', '_unsafe_index_put')
NUMBERS = packets( # not tagged pointwise, but take a CPU number
    'masked_fill', 'masked_fill_', 'fill', 'fill_', 'index_fill', 'index_fill_', '_fused_adam_', '_fused_sgd_',
    '_foreach_add_', '_foreach_mul_', '_foreach_div_')

def check_generator(func, args, kwargs, on_device):
    "`DeviceError` for a generator of another device."
    for g in (*args, kwargs.get('generator')):
        if isinstance(g, torch._C.Generator) and of_device(g) != on_device:
            names = ('cuda', 'cpu') if on_device else ('cpu', 'cuda')
            raise DeviceError("Expected a '{}' device type for generator but found '{}' [{}]".format(*names, func))

def check_tensors(func, args, tensors):
    "`DeviceError` for tensors that CUDA would not take together."
    plain, packet = [t for t in tensors if not isinstance(t, OnDevice)], func.overloadpacket
    if not plain or len(plain) == len(tensors) or packet in COPIES: return
    if packet in INDEXING and isinstance(args[0], OnDevice):
        plain = [t for t in args[2:3] if isinstance(t, torch.Tensor) and not isinstance(t, OnDevice)]
    numbers = packet in INDEXING | NUMBERS or torch.Tag.pointwise in func.tags
    first = packet not in INDEXING or isinstance(args[0], OnDevice)
    if numbers and first and all(t.dim() == 0 for t in plain): return
    shapes = [(tuple(t.shape), str(t.device)) for t in tensors]
    two = 'Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!'
    raise DeviceError(f'{two} [{func}; {shapes}]')

# Operators that torch's C++ code chooses for a GPU alone
def _batch_norm(*args): return *aten.native_batch_norm(*args), args[0].new_empty(0, dtype=torch.uint8)
def _batch_norm_backward(x, g, w, mean, var, save_mean, save_var, eps, _):
    return aten.native_batch_norm_backward(g, x, w, mean, var, save_mean, save_var, True, eps, [True]*3)

ON_CPU = {aten.cudnn_batch_norm.default: _batch_norm, aten.cudnn_batch_norm_backward.default: _batch_norm_backward}
RAN = dict(cuda=collections.Counter(), cpu=collections.Counter(), meta=collections.Counter())

def count(func, where, args, kwargs):
    "Count an operator; those on shapes alone (meta tensors) do no work anywhere."
    meta = any((v.device if isinstance(v, torch.Tensor) else v).type == 'meta'
               for v in tree_iter((args, kwargs)) if isinstance(v, (torch.Tensor, torch.device)))
    RAN['meta' if meta else where][func.overloadpacket.__name__] += 1

def is_composite(func): return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), 'CompositeImplicitAutograd')

def to_copy(x, kwargs, target): # `Tensor.to`
    "A copy on the device that is asked for, never an alias."
    out = aten._to_copy(inside(x), **{k: v for k,v in kwargs.items() if k not in ('device', 'pin_memory')})
    out = out.clone() if out is inside(x) else out
    return OnDevice(out) if (isinstance(x, OnDevice) if target is None else is_cuda(target)) else out

def perform(func, args, kwargs):
    "Check an operator, run it on the CPU, and put what it gives on its device."
    if is_composite(func):
        with Mode(): out = func.decompose(*args, **kwargs)
        if out is not NotImplemented: return out
    packet, target = func.overloadpacket, kwargs.get('device')
    tensors = [t for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)]
    on_device = any(isinstance(t, OnDevice) for t in tensors) if target is None else is_cuda(target)
    check_generator(func, args, kwargs, on_device)
    check_tensors(func, args, tensors)
    count(func, 'cuda' if on_device else 'cpu', args, kwargs)
    if packet is aten._to_copy: return to_copy(args[0], kwargs, target)
    if packet is aten.copy_:
        inside(args[0]).copy_(inside(args[1]))
        return args[0]
    if packet is aten.is_pinned: return False
    if packet is aten.lift_fresh: return args[0]
    plain = dict(tree_map(inside, kwargs))
    if on_device and 'device' in plain: plain['device'] = torch.device('cpu')
    out = ON_CPU.get(func, func)(*tree_map(inside, args), **plain)
    if not on_device or packet is aten._local_scalar_dense: return out
    shells = {id(inside(t)): t for t in tensors}
    def wrap(o):
        if not isinstance(o, torch.Tensor) or isinstance(o, OnDevice): return o
        return shells[id(o)] if id(o) in shells else OnDevice(o)
    out = tree_map(wrap, out)
    aliases = any(a.alias_info is not None for a in func._schema.arguments)
    return return_and_correct_aliasing(func, args, kwargs, out) if aliases else out

def concerns(v): # whether an argument has to do with the device
    return isinstance(v, OnDevice) or of_device(v) or isinstance(v, torch.device) and is_cuda(v)

class Mode(TorchDispatchMode):
    "Sends what concerns the device to `perform`, and counts what does not."
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(concerns(v) for v in tree_iter((args, kwargs))): return perform(func, args, kwargs)
        count(func, 'cpu', args, kwargs)
        return func(*args, **kwargs)

# What `torch` says of the device
def generator(real):
    "A stand-in for the class `torch.Generator`."
    class Kind(type):
        def __instancecheck__(cls, x): return isinstance(x, real)
    class Generator(metaclass=Kind):
        def __new__(cls, device='cpu'):
            g = real()
            if is_cuda(device): GENERATORS[g._cdata] = g
            return g
    return Generator

def answers(): # dict name -> function, for `torch.cuda`
    nothing, free = (lambda *_, **__: None), 15*2**30
    properties = types.SimpleNamespace(name='False GPU', major=7, minor=5, total_memory=free, multi_processor_count=40)
    says = dict(
        is_available=True, is_initialized=True, device_count=1, current_device=0, get_device_name='False GPU',
        get_device_properties=properties, get_device_capability=(7, 5), mem_get_info=(free, free),
        is_bf16_supported=True, memory_allocated=0, max_memory_allocated=0, memory_reserved=0, max_memory_reserved=0,
        _is_in_bad_fork=False)
    quiet = ('init _lazy_init synchronize empty_cache ipc_collect reset_peak_memory_stats set_device manual_seed '
             'manual_seed_all')
    return {k: lambda *_, v=v, **__: v for k,v in says.items()} | dict.fromkeys(quiet.split(), nothing) | dict(
        get_rng_state=lambda *_: torch.get_rng_state(), set_rng_state=lambda *_: None)

def register():
    "Make the inner device known to torch, once a process."
    if hasattr(torch, INNER): return
    backend = backend_registration._DummyBackendModule()
    backend.get_rng_state, backend.set_rng_state = (lambda *_: torch.get_rng_state()), (lambda *_: None)
    backend_registration._setup_privateuseone_for_python_backend(INNER, backend_module=backend)
    torch._C._ensureCUDADeviceGuardSet()

@contextlib.contextmanager
def false_cuda(): # yields the counts of operators, by device
    "The false device, inside this context only; RuntimeError where torch lacks what it takes."
    if MISSING: raise RuntimeError(f'torch {torch.__version__} has no {", ".join(MISSING)}')
    import torch.optim.optimizer as o
    register()
    swaps = [(torch.cuda, k, v) for k,v in answers().items()] + [(torch, 'Generator', generator(torch.Generator))]
    before = [(where, k, getattr(where, k)) for where,k,_ in swaps]
    for where,k,v in swaps: setattr(where, k, v)
    torch._C._set_only_lift_cpu_tensors(True)
    o._foreach_supported_types.append(OnDevice)
    for c in RAN.values(): c.clear()
    try:
        with Mode(): yield RAN
    finally:
        for where,k,v in before: setattr(where, k, v)
        torch._C._set_only_lift_cpu_tensors(False)
        o._foreach_supported_types.remove(OnDevice)

if not MISSING: register() # before the first backward pass, when torch counts its devices
