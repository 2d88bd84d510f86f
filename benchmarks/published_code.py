"""The other side of speed.py: the published PyTorch code, in a process and an environment of its own.

python benchmarks/published_code.py --reference=CHECKOUT --data=FOLDER [--cuda]

The checkout is that of github.com/txie-93/cgcnn. Its own classes and its own loops (main.py's `train` and `validate`)
are imported and timed as they are, with its defaults: no loader processes, graphs kept by the lru_cache once built.
The network and the optimiser are those of its published formation-energy model.

One JSON object a line on stdin, one line of JSON for each on stdout:
  {"do": "about"}                  versions, device, threads
  {"do": "load"}                   builds and keeps all graphs: seconds, crystals, nodes, edges
  {"do": "neighbors", "ids": [..]} searches the neighbours within 8 Å of each, parsed before, and sorts them
  {"do": "train", "epochs": n}     n epochs over all crystals
  {"do": "predict"}                all crystals once, with the published formation-energy weights
The last three reply {"seconds": .., "crystals": ..}. What the published code prints goes to stderr.

Needs torch, scikit-learn, pymatgen and numpy. Must not import cgcnn_jax.
"""

import argparse
import contextlib
import importlib
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

# As stored in the published checkpoint; the code's own defaults are others.
SETTINGS = "--n-conv=4 --atom-fea-len=64 --n-h=1 --h-fea-len=32 --batch-size=256 --optim=SGD --lr=0.02 --momentum=0.9"
WEIGHTS = Path("pre-trained") / "formation-energy-per-atom.pth.tar"


class PublishedCode:
    """The published code with a folder of crystals."""

    def __init__(self, checkout: Path, data: Path, cuda: bool) -> None:
        sys.path.insert(0, str(checkout))
        # main.py reads the command line when it is imported.
        sys.argv = [
            "main.py",
            str(data),
            *SETTINGS.split(),
            "--print-freq=1000000",
            *([] if cuda else ["--disable-cuda"]),
        ]
        self._main = importlib.import_module("main")
        self._args = self._main.args
        self._data = importlib.import_module("cgcnn.data")
        self._model = importlib.import_module("cgcnn.model")
        self._torch = importlib.import_module("torch")
        self._checkout = checkout
        self._folder = data
        self._structures: dict[str, Any] = {}

    def about(self) -> dict[str, Any]:
        """Where and with what it runs."""
        names = ("torch", "pymatgen", "numpy", "scikit-learn")
        return {
            "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in names},
            "device": self._torch.cuda.get_device_name() if self._args.cuda else "cpu",
            "threads": self._torch.get_num_threads(),
        }

    def load(self) -> dict[str, Any]:
        """Builds all graphs, which the data set keeps, and both networks."""
        began = time.perf_counter()
        self._crystals = self._data.CIFData(str(self._folder))
        items = [self._crystals[index] for index in range(len(self._crystals))]
        seconds = time.perf_counter() - began
        self._loader = self._torch.utils.data.DataLoader(
            self._crystals,
            batch_size=self._args.batch_size,
            shuffle=True,
            num_workers=self._args.workers,
            collate_fn=self._data.collate_pool,
            pin_memory=self._args.cuda,
        )
        (atoms, bonds, _), _, _ = items[0]
        self._trained = self._network(atoms.shape[-1], bonds.shape[-1])
        self._published = self._network(atoms.shape[-1], bonds.shape[-1])
        # Not as published: a newer torch wants to be told that the file may be unpickled whole.
        checkpoint = self._torch.load(self._checkout / WEIGHTS, map_location="cpu", weights_only=False)
        self._published.load_state_dict(checkpoint["state_dict"])
        self._criterion = self._torch.nn.MSELoss()
        self._optimizer = self._torch.optim.SGD(
            self._trained.parameters(), self._args.lr, momentum=self._args.momentum, weight_decay=0
        )
        self._normalizer = self._main.Normalizer(self._torch.stack([target for _, target, _ in items]))
        self._published_normalizer = self._main.Normalizer(self._torch.zeros(3))
        self._published_normalizer.load_state_dict(checkpoint["normalizer"])
        nodes = sum(len(graph[0]) for graph, _, _ in items)
        edges = sum(graph[2].numel() for graph, _, _ in items)
        return {"seconds": seconds, "crystals": len(items), "nodes": nodes, "edges": edges}

    def neighbors(self, ids: list[str]) -> dict[str, Any]:
        """The search and the sort of `CIFData.__getitem__`, without parsing and without features."""
        from pymatgen.core import Structure

        for id in ids:
            if id not in self._structures:
                self._structures[id] = Structure.from_file(self._folder / f"{id}.cif")
        began = time.perf_counter()
        for id in ids:
            found = self._structures[id].get_all_neighbors(8, include_index=True)
            for neighbors in found:
                sorted(neighbors, key=lambda neighbor: neighbor[1])
        return {"seconds": time.perf_counter() - began, "crystals": len(ids)}

    def train(self, epochs: int) -> dict[str, Any]:
        """Epochs by the published loop: collation, normalisation, step, and its running errors."""
        began = time.perf_counter()
        for epoch in range(epochs):
            self._main.train(self._loader, self._trained, self._criterion, self._optimizer, epoch, self._normalizer)
        self._finish()
        return {"seconds": time.perf_counter() - began, "crystals": epochs * len(self._crystals)}

    def predict(self) -> dict[str, Any]:
        """All crystals by the published loop."""
        began = time.perf_counter()
        self._main.validate(self._loader, self._published, self._criterion, self._published_normalizer)
        self._finish()
        return {"seconds": time.perf_counter() - began, "crystals": len(self._crystals)}

    def _network(self, atom_width: int, bond_width: int) -> Any:
        args = self._args
        network = self._model.CrystalGraphConvNet(
            atom_width,
            bond_width,
            atom_fea_len=args.atom_fea_len,
            n_conv=args.n_conv,
            h_fea_len=args.h_fea_len,
            n_h=args.n_h,
        )
        return network.cuda() if args.cuda else network

    def _finish(self) -> None:
        if self._args.cuda:
            self._torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of github.com/txie-93/cgcnn")
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFs, id_prop.csv and atom_init.json")
    parser.add_argument("--cuda", action="store_true", help="use the GPU, where torch finds one")
    arguments = parser.parse_args()
    # By number: the published code prints, and so may libraries below Python.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with contextlib.redirect_stdout(sys.stderr):
        code = PublishedCode(arguments.reference.absolute(), arguments.data.absolute(), arguments.cuda)
        for line in sys.stdin:
            request = json.loads(line)
            reply = getattr(code, request.pop("do"))(**request)
            print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
