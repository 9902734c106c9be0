#!/usr/bin/env python3
"""Draw the picture of README.md from the committed records, then refresh its caption:

    python tools/readme_figure.py
    python tools/nb.py run nbs/index.ipynb && python tools/nb.py readme
"""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from matplotlib import pyplot as plt
from al_repro.evidence.claims import base_name
from al_repro.evidence.effects import fresh
from al_repro.show.curves import curve_gap, learning_curves
from al_repro.runs.records import table

FOLDER, IMAGE = 'results/dal-q100-mnist-quick', 'nbs/images/dal_mnist_q100.png'

def main():
    "Learning curves beside the paired difference to random, finished runs only"
    runs = fresh(table(ROOT/FOLDER)).assign(strategy=lambda t: t.strategy.map(base_name))
    fig, axes = plt.subplots(1, 2, figsize=(10.5, 4.3), layout='constrained')
    learning_curves(runs, ax=axes[0])
    curve_gap(runs, ax=axes[1])
    (ROOT/IMAGE).parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(ROOT/IMAGE, dpi=150, metadata={'Software': None})
    print(f"{IMAGE}: {', '.join(f'{s} n={n}' for s, n in runs.groupby('strategy').seed.nunique().items())}")

if __name__ == '__main__': main()
