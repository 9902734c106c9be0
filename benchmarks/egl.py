"""Expected gradient length over all weights of LeNet, 28 x 28, 10 labels: ours beside the loop and beside torch.func, in one run.

*ours*: `egl_all_layers_score`, quadratic forms layer by layer. *loop*: for every row one forward pass and, for every label, one backward pass of its own.
*vmap*: `torch.func`, the gradient of one row's loss mapped over 50 rows, label after label. *chunk*: `chunk_egl_score`, what DAL's code computes, which is not
the same quantity. *last layer*: the closed form. Error: largest relative one against the loop, in float64; times in float32, the median of interleaved
repeats. The loop costs the same for every row, so it is timed on a tenth of them and scaled. Run it alone: other work disturbs it.

    python benchmarks/egl.py [--n 200] [--threads 1] [--repeats 3] [--device cpu|cuda]
"""
import argparse, time

def loop(model, x):
    import torch
    weights, scores = list(model.parameters()), []
    for row in x:
        logp = model(row[None])[0].log_softmax(0)
        norms = [sum((g**2).sum() for g in torch.autograd.grad(-l, weights, retain_graph=True)).sqrt() for l in logp]
        scores.append((logp.detach().exp()*torch.stack(norms)).sum())
    return torch.stack(scores)

def vmapped(model, x, rows=50):
    import torch
    from torch.func import functional_call, grad, vmap
    weights, scores = {n: w.detach() for n,w in model.named_parameters()}, []
    def loss(w, row, c): z = functional_call(model, w, (row[None],))[0]; return -z.log_softmax(0)[c], z
    f = vmap(grad(loss, has_aux=True), (None, 0, None))
    for xb in x.split(rows):
        norms = []
        for c in range(10):
            g, z = f(weights, xb, c)
            norms.append(sum((v.flatten(1)**2).sum(1) for v in g.values()).sqrt())
        scores.append((z.softmax(1)*torch.stack(norms, 1)).sum(1))
    return torch.cat(scores)

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--n', type=int, default=200); a.add_argument('--threads', type=int, default=1); a.add_argument('--repeats', type=int, default=3); a.add_argument('--device', default='cpu')
    a = a.parse_args()
    import torch
    from al_repro.models.nets import Member, build_model, init_weights
    from al_repro.models.train import keep_memory
    from al_repro.strategies.egl import chunk_egl_score, egl_all_layers_score, egl_last_layer_score
    keep_memory(); torch.set_num_threads(a.threads)
    gen = torch.Generator().manual_seed(0)
    model = Member(init_weights(build_model('lenet', (1, 28, 28), 10), [gen])).eval().to(a.device, memory_format=torch.channels_last)
    x, part = torch.rand(a.n, 1, 28, 28, generator=gen).to(a.device), max(5, a.n//10)
    few, model = x[:5].double(), model.double()
    want = loop(model, few).cpu().numpy()
    for name,f in dict(ours=egl_all_layers_score, vmap=lambda *args: vmapped(*args).cpu().numpy()).items(): print(f'{name}: largest relative error against the loop, float64: {abs(f(model, few)/want - 1).max():.1e}')
    model = model.float()
    print(f'ours in float32 against the loop in float64: {abs(egl_all_layers_score(model, few.float())/want - 1).max():.1e}')
    with torch.no_grad(): h = model.body(x); p, h = model.head(h).softmax(1).cpu().numpy(), h.cpu().numpy()
    ways = dict(ours=(lambda: egl_all_layers_score(model, x), 1), vmap=(lambda: vmapped(model, x), 1), loop=(lambda: loop(model, x[:part]), a.n/part),
                chunk=(lambda: chunk_egl_score(model, x), 1), last=(lambda: egl_last_layer_score(p, h), 1))
    def seconds(f):
        if x.is_cuda: torch.cuda.synchronize()
        t = time.perf_counter(); f()
        if x.is_cuda: torch.cuda.synchronize()
        return time.perf_counter() - t
    for f,_ in ways.values(): f() # warm up
    runs = [{name: seconds(f)*scale for name,(f,scale) in ways.items()} for _ in range(a.repeats)]
    took = {name: sorted(r[name] for r in runs)[a.repeats//2] for name in ways}
    print(f'{a.n} rows, {a.threads} thread(s), {a.device}')
    for name,what in dict(ours='all layers, quadratic forms', vmap='all layers, torch.func', loop=f'all layers, loop (scaled from {part} rows)', chunk="DAL's chunks of 100 (another quantity)", last='last layer, closed form').items():
        print(f"{took[name]:9.4f} s  {what}: {took[name]/took['ours']:.3g} times ours")

if __name__ == '__main__': main()
