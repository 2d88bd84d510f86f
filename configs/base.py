"""Every field of an experiment, once, with its unit and where the default comes from.

A property file calls `get_config` and changes a few fields; the command line changes any:
  python -m experiments.train --config=configs/formation_energy.py:paper --config.train.epochs=50

The part after the colon chooses a preset:
  reference  the network as released, in the sizes of the published weights (default)
  paper      Table II one-hot atoms, ten distance bins, Eq. 5 as printed, no batch normalisation
  best       Eq. 5 with networks of two layers for bonds and atoms, trained by Muon on absolute errors: the most accurate
             so far (docs/benchmarks.md has what each part brings). Sets of ten thousand crystals and more want fewer
             epochs than its 200 (40 to 120), and the larger the less decay (optimizer.l2): weights forget what they
             learned 1 / (learning_rate l2 steps) epochs ago, steps being those of an epoch, and about ten are good

The others train with Adam and a cosine schedule, which needs a fifth of the published epochs. The published recipe is
  --config.optimizer.name=sgd --config.optimizer.learning_rate=0.02 --config.optimizer.schedule=milestones
  --config.optimizer.milestones="(800,)" --config.train.epochs=1000 --config.train.batch_size=256
(band gap 0.05; Poisson ratio and classification 0.01; elastic properties batch 64; classification 500 and 400 epochs)
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

PRESETS = ("reference", "paper", "best")


def get_config(preset: str | None = None) -> ConfigDict:
    """The default configuration of a preset. Raises ValueError for an unknown one."""
    name = preset or "reference"
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r} after the colon; choose one of {', '.join(PRESETS)}")
    config = ConfigDict()

    config.init_from = ""  # work directory whose weights training starts from (fine-tuning); the network must be alike

    config.data = ConfigDict()
    # demo, jsonl, directory (id_prop.csv, ID.cif), files, matbench, jarvis, cdvae, ase: docs/data.md
    config.data.source = "demo"
    config.data.path = ""  # file or folder of the source (files: several, separated by commas); empty: the fetched set
    config.data.task = ""  # benchmark, such as matbench_log_kvrh: chooses crystals and their split, names the target
    config.data.fold = 0  # which fold is the test split, of a source's official folds or of split.kind=k_fold
    config.data.target = ""  # property to learn; several, separated by commas; empty: the task's
    config.data.unit = ""  # its unit, for tables and axes; several, separated by commas; empty: the source's, if known
    config.data.columns = ""  # names of the value columns of an id_prop.csv without header; target's if empty
    config.data.log10 = False  # learn the base-10 logarithm of the labels
    config.data.on_error = "error"  # error stops at bad crystals, skip leaves them out and lists them in rejected.csv
    config.data.cache = "auto"  # folder of built graphs; auto is the user's cache folder, empty keeps none
    config.data.workers = 0  # processes that build graphs; 0 takes all cores
    config.data.wanted = ""  # what real data an experiment wants, shown when it is started without

    config.split = ConfigDict()
    # ratio, size, source (recorded with the crystals), files, k_fold, or auto: source where the data have an official
    # split (matbench, cdvae, jarvis with a task), ratio otherwise
    config.split.kind = "auto"
    config.split.ratios = (0.6, 0.2, 0.2)  # train, val, test (paper: 60 %, 20 %, 20 %)
    config.split.sizes = (0, 0, 0)  # crystals in train, val, test, for kind=size
    config.split.files = ("", "", "")  # id files of train, val, test, for kind=files
    config.split.num_folds = 5  # for kind=k_fold
    config.split.val_ratio = 0.1  # share of val in the other folds; 0 trains on all of them and keeps the last weights
    config.split.redraw_val = False  # of a source with train and val of its own: join them, and draw val as of folds
    config.split.by_composition = False  # no composition in two splits (ratio and k_fold)
    config.split.by_structure = False  # no crystal in two splits, in whatever cell (ratio and k_fold); docs/data.md
    config.split.seed = 0

    config.graph = ConfigDict()
    config.graph.neighbors = "shells"  # shells (whole), nearest (exactly k), radius, voronoi (the paper's rule)
    config.graph.num_neighbors = 12  # released code
    config.graph.cutoff = 8.0  # Å, released code; voronoi: 6 Å in the paper
    config.graph.fidelity = ""  # published: an atom short of `nearest` neighbours gets the released code's false bonds
    config.graph.shell_tolerance = 1e-3  # Å, distances closer than this are one shell
    config.graph.share_last_shell = False  # equals of the last neighbour share its places (shells), docs/graphs.md
    config.graph.bond_tolerance = 0.25  # Å beyond the covalent radii, voronoi (paper)
    config.graph.angles = False  # 16 features of a bond besides: how those of its two atoms lie to it, docs/graphs.md
    config.graph.quotient = True  # one node for all equivalent atoms; the same predictions, several times faster
    config.graph.quotient_tolerance = 1e-3  # Å, equal distances in the quotient; docs/graphs.md has the cost

    config.atoms = ConfigDict()
    # released (92 columns), paper (Table II, 93), the path of an atom_init.json, or auto: the atom_init.json beside an
    # id_prop.csv if there is one, released otherwise
    config.atoms.table = "auto"
    config.atoms.properties = 9  # the first 2, 3 or all 9 properties of the table (Table S1)

    config.bonds = ConfigDict()
    config.bonds.basis = "gaussian"  # gaussian (released), reciprocal (Gaussians of 1/d: PotNet), or bins (paper)
    config.bonds.cutoff = 8.0  # Å, centre of the farthest Gaussian
    config.bonds.spacing = 0.2  # Å, between Gaussians, and their width
    config.bonds.num_gaussians = 128  # of reciprocal, even in 1/d from 1/cutoff to 1/low: 0.01/Å apart
    config.bonds.low = 0.7  # Å, lower edge of the first bin; centre of the nearest Gaussian of reciprocal
    config.bonds.high = 5.2  # Å, upper edge of the last bin
    config.bonds.num_bins = 10

    config.model = ConfigDict()
    config.model.task = "regression"  # or classification, with cross entropy
    config.model.num_classes = 2
    # sum (Eq. 4), gated (Eq. 5 as printed), gated_norm (Eq. 5 as released), gated_mlp (that, with two-layer networks in
    # gate and core; PotNet, ComFormer), gated_update (that, with a two-layer network at every atom after the sum). The
    # first two have no normalisation and want shorter steps: optimizer.learning_rate=2e-3 and clip_norm=1, or 1e-3
    config.model.conv = "gated_norm"
    config.model.num_convs = 4  # R; the published formation-energy weights have 4
    config.model.features = 64  # width of atom vectors
    config.model.pool = "mean"  # mean (S16), softmax (S11-S13), site (S14-S15)
    config.model.activate_pooled = True  # softplus after pooling, released code
    config.model.atom_layers = 0  # L1, hidden layers per atom
    config.model.crystal_layers = 1  # L2, hidden layers after pooling
    config.model.crystal_features = 32  # width of those; published weights
    config.model.dropout = 0.0  # before the output layer
    config.model.precision = "default"  # of matrix products: default of the device (TF32 on GPUs), float32, bfloat16
    config.model.init_scale = placeholder(float)  # standard deviation of initial weights; None is torch's rule

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # adam, sgd, adamw or muon
    config.optimizer.learning_rate = 5e-3  # the peak, where a schedule moves it
    config.optimizer.momentum = 0.9  # of sgd
    config.optimizer.l2 = 0.0  # coupled to the gradient as in torch; decoupled in adamw and muon
    config.optimizer.clip_norm = 0.0  # largest gradient norm; 0 is off
    config.optimizer.schedule = "cosine"  # constant, milestones, cosine (to 0), one_cycle
    config.optimizer.milestones = ()  # epochs at which the learning rate is multiplied by factor
    config.optimizer.factor = 0.1
    config.optimizer.warmup_epochs = 0.0  # of cosine

    config.train = ConfigDict()
    config.train.epochs = 200
    config.train.batch_size = 64  # crystals a step, on all devices together
    config.train.loss = "auto"  # mse, mae, huber, of scaled targets; auto: mse, or cross_entropy in classification
    config.train.patience = 0  # epochs without a better validation error before stopping; 0 is off
    config.train.average_decay = 0.0  # of the exponential average of the weights that predicts; 0 is off
    config.train.save_seconds = 60.0  # between checkpoints
    config.train.feed = "auto"  # device: all crystals there at once; stream: batches sent; auto: what fits
    config.train.devices = 0  # of this host (of each process), which share every batch; 0 takes all
    config.train.parallel = "shard"  # how they do: shard (shard_map) or pmap, the same numbers
    config.train.seed = 0

    if name == "paper":
        config.atoms.table = "paper"
        config.bonds.basis = "bins"
        config.model.conv = "gated"
        config.model.num_convs = 3
        config.model.activate_pooled = False
        config.optimizer.learning_rate = 1e-3  # without normalisation larger steps diverge
    if name == "best":
        config.model.conv = "gated_update"
        config.optimizer.name = "muon"
        config.optimizer.learning_rate = 4e-3
        config.optimizer.l2 = 0.1
        config.train.batch_size = 32
        config.train.loss = "mae"
        config.train.average_decay = 0.999
    return config
