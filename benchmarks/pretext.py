"""Rotation prediction: ours beside a plain torchvision loop, in one run (see README.md)

    python benchmarks/pretext.py                  # a small network on the CPU
    python benchmarks/pretext.py --device cuda --model resnet18 --n 50000 --batch 256
"""
import argparse
from common import seconds, use_threads

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--n', type=int, default=2000, help='images, 32x32, in colour')
p.add_argument('--model', default='resnet8', help='one of ours; the plain loop has torchvision\'s ResNet18 with a 3x3 stem if it is resnet18, else the same network')
p.add_argument('--batch', type=int, default=128)
p.add_argument('--device', default='cpu')
p.add_argument('--threads', type=int, default=2)
args = p.parse_args()
use_threads(args.threads)

import torch
import torch.nn.functional as F
from al_repro.models.pretext import Pretext, embed, pretext_net, train_net
from al_repro.models.train import keep_memory

keep_memory()
x = torch.randint(0, 256, (args.n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(args.device)
task = Pretext(model=args.model, epochs=1, batch=args.batch)

def wait():
    if args.device != 'cpu': torch.cuda.synchronize()

def ours(): # one epoch: four passes of every image
    net, _ = train_net(x, task)
    wait()
    return net

def plain(): # the same epoch as a tutorial has it: a batch of images, all four turns of each in one pass
    if args.model == 'resnet18':
        from torchvision.models import resnet18
        net = resnet18(num_classes=4)
        net.conv1, net.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
        call = net
    else: net = pretext_net(task, (3, 32, 32), args.n); call = lambda b: net(b[None])[0]
    net.to(args.device).train()
    opt = torch.optim.SGD(net.parameters(), .05, .9, weight_decay=5e-4)
    for i in torch.randperm(len(x)).split(args.batch//4):
        b = x[i.to(args.device)].float()/255
        turned = torch.cat([torch.rot90(b, k, (2, 3)) for k in range(4)])
        loss = F.cross_entropy(call(turned), torch.arange(4, device=args.device).repeat_interleave(len(b)))
        opt.zero_grad(); loss.backward(); opt.step()
    wait()


def matrix_rate(n=4096 if args.device != 'cpu' else 1024): # bf16 multiply-adds, twice, in a second
    a = torch.randn(n, n, device=args.device, dtype=torch.bfloat16)
    a @ a; wait()
    return 2*n**3/seconds(lambda: (a @ a, wait()))[0]


small = x[:4*args.batch]
train_net(small, task); wait()
t, net = seconds(ours)
print(f'{args.model}, {args.n:,} images, batch {args.batch}, {args.device}, {args.threads} threads, torch {torch.__version__}; bf16 matrix rate {matrix_rate()/1e12:.2f} TFLOP/s')
print(f'training  ours  {4*args.n/t:9.0f} rotated images/s')
t0, _ = seconds(plain)
print(f'          plain {4*args.n/t0:9.0f} rotated images/s; ours is {t0/t:.2f} times as fast')
t, _ = seconds(lambda: (embed(net, x), wait()))
print(f'features  ours  {args.n/t:9.0f} images/s')
