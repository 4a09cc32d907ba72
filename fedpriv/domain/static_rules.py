"""The tables of the static check: which names mean what. Data only; :mod:`fedpriv.domain.static_code` applies them."""

from __future__ import annotations

from typing import NamedTuple

from fedpriv.domain.finding import Category, Severity


class Rule(NamedTuple):
    """What the use of a name means: how grave, of which kind, and what it does as a verb phrase."""

    severity: Severity
    category: Category
    does: str


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


def _rules(severity: Severity, category: Category, does: str, names: str) -> dict[str, Rule]:
    return {name: Rule(severity, category, does) for name in names.split()}


DOTTED: dict[str, Rule] = {
    **_rules(
        "danger",
        "network",
        "can open a network connection",
        """socket ssl _socket urllib.request urllib.error http requests httpx aiohttp urllib3 ftplib smtplib
        poplib imaplib telnetlib xmlrpc socketserver websockets websocket paramiko nntplib huggingface_hub
        torch.hub torch.distributed torch.utils.tensorboard boto3 botocore grpc zmq wandb mlflow comet_ml
        fsspec webbrowser asyncio pycurl dns datasets transformers.utils.hub selectors asyncore smtpd google
        azure minio redis pymongo psycopg2 sqlalchemy syft syft_job syft_rds fedpriv.transport
        fedpriv.training.fetch fedpriv.training.base_model fedpriv.training.ensure_model torch.utils.model_zoo
        numpy.DataSource numpy.lib.npyio""",
    ),
    **_rules(
        "danger",
        "subprocess",
        "can start another program or process",
        """subprocess _posixsubprocess pty os.system os.popen os.fork os.forkpty os.execl os.execle os.execlp
        os.execlpe os.execv os.execve os.execvp os.execvpe os.spawnl os.spawnle os.spawnlp os.spawnv
        os.spawnve os.spawnvp os.posix_spawn os.posix_spawnp os.kill os.killpg multiprocessing
        torch.multiprocessing concurrent.futures.ProcessPoolExecutor commands popen2 pexpect sh plumbum ray
        dask joblib fedpriv.training.worker fedpriv.training.child""",
    ),
    **_rules(
        "danger",
        "native-code",
        "runs machine code or reaches into memory",
        """ctypes _ctypes cffi mmap numpy.ctypeslib torch.utils.cpp_extension torch.ops.load_library
        torch.classes.load_library fcntl numba cython pyximport distutils setuptools torch._C
        torch.utils.dlpack numpy.lib.stride_tricks cppyy llvmlite numpy.f2py numpy.distutils""",
    ),
    **_rules(
        "danger",
        "dynamic-code",
        "makes or loads code while it runs",
        """builtins.eval builtins.exec builtins.compile builtins.__import__ importlib _frozen_importlib _imp imp
        pkgutil runpy code codeop zipimport zipapp types.FunctionType types.CodeType types.LambdaType
        types.ModuleType marshal pickle _pickle cPickle dill cloudpickle shelve jsonpickle copyreg torch.load
        torch.jit.load torch.package torch.export.load numpy.load yaml.load yaml.unsafe_load yaml.full_load
        sys.modules sys.path sys.meta_path sys.path_hooks sys.path_importer_cache builtins.__builtins__
        builtins.__loader__ builtins.__spec__ builtins timeit torch.serialization typing.get_type_hints
        typing.ForwardRef fedpriv.training.recipe torch.fx torch._dynamo transformers.dynamic_module_utils pip
        ensurepip site ast""",
    ),
    **_rules(
        "danger",
        "introspection",
        "looks into other code or at the objects in memory",
        """sys.settrace sys.setprofile sys._getframe sys._current_frames sys._current_exceptions gc inspect
        threading.settrace threading.setprofile tracemalloc dis trace bdb pdb cProfile profile faulthandler
        string.Formatter fedpriv.training.jobs builtins.breakpoint sys.addaudithook sys.gettrace""",
    ),
    **_rules(
        "danger",
        "file-write",
        "writes, moves or deletes files",
        """shutil torch.save numpy.save numpy.savez numpy.savez_compressed numpy.savetxt numpy.memmap
        numpy.lib.format.open_memmap safetensors.torch.save_file safetensors.torch.save
        safetensors.numpy.save_file os.mkdir os.makedirs os.remove os.removedirs os.rename os.renames
        os.replace os.unlink os.rmdir os.link os.symlink os.chmod os.chown os.open os.write os.pwrite
        os.mkfifo os.mknod os.truncate os.sendfile os.utime os.memfd_create os.pipe os.fdopen os.dup os.dup2
        tempfile sqlite3 dbm logging.FileHandler logging.handlers torch.jit.save torch.onnx torch.export.save
        os.setxattr zipfile tarfile gzip bz2 lzma h5py fedpriv.files fedpriv.training.adapter.save_state
        fedpriv.training.adapter.write_peft_folder fedpriv.training.save_state
        fedpriv.training.write_peft_folder""",
    ),
    **_rules(
        "warning",
        "file-read",
        "looks for or reads files",
        """os.listdir os.walk os.scandir os.fwalk os.stat os.lstat os.access os.readlink os.path.expanduser
        os.path.exists os.path.isfile os.path.isdir os.path.realpath os.path.getsize os.chdir os.getcwd
        os.getxattr os.read os.pread os.fstat glob fnmatch numpy.fromfile numpy.loadtxt numpy.genfromtxt
        linecache fileinput pandas pathlib.Path.home pathlib.Path.cwd io.FileIO io.open codecs.open filecmp
        mailbox netrc configparser duckdb builtins.__file__ io.open_code os.path.expandvars
        importlib.resources fedpriv.clinical""",
    ),
    **_rules(
        "warning",
        "environment",
        "asks about this machine, its user or its settings",
        """os.environ os.environb os.getenv os.putenv os.unsetenv os.uname os.getlogin os.getuid os.geteuid
        os.getgid os.getgroups os.getppid os.sysconf os.confstr platform getpass pwd grp spwd psutil resource
        sysconfig sys.argv sys.orig_argv uuid socket.gethostname locale sys.executable sys.prefix sys.flags
        sys.version cpuinfo fedpriv.doctor""",
    ),
    **_rules(
        "danger",
        "obfuscation",
        "unpacks encoded data",
        """base64 binascii zlib codecs quopri uu builtins.bytes.fromhex builtins.bytearray.fromhex zstandard
        cryptography hashlib hmac secrets nacl""",
    ),
    **_rules(
        "warning",
        "hidden-hook",
        "arranges for code to run at another moment, or beside the training",
        """atexit signal weakref threading _thread concurrent sys.excepthook sys.unraisablehook sys.displayhook
        sched os.register_at_fork sys.setswitchinterval contextvars queue torch.library torch.autograd.graph""",
    ),
    **_rules(
        "danger",
        "replaced-code",
        "can put other code in the place of a library's",
        "unittest mock wrapt gorilla forbiddenfruit ptrace sys.setrecursionlimit",
    ),
    **_rules("warning", "hidden-channel", "waits, which the researcher could measure", "time.sleep"),
    **_rules(
        "information",
        "hidden-channel",
        "turns text or bytes into numbers, or numbers into bytes",
        """builtins.ord builtins.hash builtins.bytes builtins.bytearray builtins.memoryview
        builtins.int.from_bytes struct array numpy.frombuffer numpy.fromstring torch.frombuffer builtins.id
        numpy.packbits numpy.unpackbits""",
    ),
    **_rules("information", "log-output", "prints", "builtins.print sys.stdout sys.stderr sys.__stdout__"),
    **_rules("information", "log-output", "writes log messages or warnings", "logging warnings tqdm pprint traceback"),
    **_rules("information", "subprocess", "lets PyTorch call a compiler", "torch.compile torch.jit"),
    **_rules(
        "warning",
        "introspection",
        "reaches into other code's variables",
        "builtins.globals builtins.locals builtins.vars",
    ),
    **_rules("information", "introspection", "asks for the names that something has", "builtins.dir"),
    **_rules("warning", "dynamic-code", "asks a person for input while it runs", "builtins.input"),
    **_rules("information", "unknown-import", "uses the system's functions", "os sys io posix nt"),
}
"""By dotted name; the longest name that is a beginning of what the code uses counts."""

HARMLESS = words(
    """os.path.join os.path.basename os.path.splitext os.path.sep os.fspath os.cpu_count os.PathLike os.sep
    sys.maxsize sys.version_info sys.float_info io.StringIO io.BytesIO os.linesep os.getpid hashlib.sha256
    hashlib.md5 weakref.ref weakref.WeakKeyDictionary weakref.WeakValueDictionary torch.distributed.is_available
    torch.distributed.is_initialized torch._C._log_api_usage_once types.ModuleType.__name__"""
)
"""Uses that need no mention although their module does."""

SOFT_BUILTINS = words("input vars dir hash id print bytes compile ord code __file__")
"""Built-in names that honest code also gives to variables: no finding where the file assigns to them."""

ATTRIBUTES: dict[str, Rule] = {
    **_rules(
        "danger",
        "subprocess",
        "can start another program or process",
        "system popen Popen check_output check_call fork forkpty execv execve execvp spawnv posix_spawn getoutput",
    ),
    **_rules(
        "danger",
        "network",
        "can open a network connection",
        "urlopen urlretrieve create_connection push_to_hub snapshot_download hf_hub_download sendto sendall connect_ex",
    ),
    **_rules("danger", "native-code", "runs machine code", "CDLL PyDLL LoadLibrary dlopen load_library cdll pythonapi"),
    **_rules(
        "danger",
        "dynamic-code",
        "makes or loads code while it runs",
        "import_module exec_module load_module spec_from_file_location load_source __import__ load_state_dict_from_url",
    ),
    **_rules(
        "danger",
        "introspection",
        "reaches into other code's variables",
        """f_locals f_globals f_back f_builtins f_code tb_frame gi_frame cr_frame ag_frame co_code settrace
        setprofile get_referrers get_referents get_objects currentframe _getframe __globals__ __code__
        __subclasses__ __builtins__ __closure__ __mro__ __bases__ __base__ mro __getattribute__ __loader__
        __spec__ __self__ __func__ __kwdefaults__ __defaults__ __wrapped__""",
    ),
    **_rules(
        "warning",
        "introspection",
        "reaches into other code's variables",
        """__class__ __dict__ __setattr__ __delattr__ __module__ __reduce__ __reduce_ex__ __getstate__
        __setstate__ __import__ __qualname__ __init_subclass__ __subclasshook__ __weakref__ __slots__
        __type_params__""",
    ),
    **_rules(
        "danger",
        "file-write",
        "writes, moves or deletes files",
        """write_text write_bytes unlink rmdir mkdir touch symlink_to hardlink_to link_to chmod lchmod
        save_pretrained save_model tofile to_csv to_json to_parquet to_pickle to_hdf extractall
        export_chrome_trace makedirs removedirs rmtree copyfile copytree save_file savez savetxt
        save_checkpoint""",
    ),
    **_rules("warning", "file-read", "looks for or reads files", "iterdir rglob listdir scandir expanduser fromfile"),
    **_rules("warning", "environment", "asks about this machine, its user or its settings", "environ getenv environb"),
    **_rules("danger", "obfuscation", "unpacks encoded data", "b64decode b32decode b85decode fromhex unhexlify"),
    **_rules("information", "hidden-channel", "turns text or bytes into numbers", "from_bytes frombuffer to_bytes"),
    **_rules(
        "information",
        "hidden-hook",
        "has a function run inside the model",
        """register_forward_hook register_backward_hook register_full_backward_hook register_forward_pre_hook
        register_hook register_full_backward_pre_hook register_post_accumulate_grad_hook
        register_step_post_hook""",
    ),
}
"""By the name after the last dot, whatever stands before it."""

PATH_READERS = frozenset({"open", "read_text", "read_bytes", "glob", "exists", "is_file", "is_dir", "stat", "resolve"})
"""Methods of a path; on the paths that the context gives they are what a recipe is for."""

GIVEN_PATHS = frozenset({"train", "heldout", "model_folder"})
"""What :class:`fedpriv.training.LocalContext` offers to be read."""

IMPORTABLE = words(
    """__future__ abc bisect collections contextlib copy dataclasses datetime decimal enum fractions functools
    heapq itertools json math numbers operator pathlib random re statistics string time typing typing_extensions
    types torch numpy transformers peft tokenizers safetensors accelerate opacus scipy einops fedpriv.training
    fedpriv.study fedpriv.errors os sys io"""
)
"""What training code usually imports; a name here covers what lies below it unless :data:`DOTTED` says otherwise."""

HARMLESS_DECORATORS = (
    "builtins.property",
    "builtins.staticmethod",
    "builtins.classmethod",
    "dataclasses.",
    "functools.",
    "contextlib.",
    "abc.",
    "typing.",
    "torch.no_grad",
    "torch.inference_mode",
    "torch.enable_grad",
    "torch.autocast",
    "torch.amp.",
)

HOOK_METHODS: dict[str, Severity] = {
    **dict.fromkeys(("__del__", "__reduce__", "__reduce_ex__", "__getattribute__", "__import__"), "warning"),
    **dict.fromkeys(("__set_name__", "__init_subclass__", "__instancecheck__", "__mro_entries__"), "warning"),
    **dict.fromkeys(("__getattr__", "__setattr__", "__torch_function__", "__torch_dispatch__"), "information"),
    **dict.fromkeys(("__array_function__", "__array_ufunc__", "__class_getitem__", "__format__"), "information"),
    **dict.fromkeys(("__getstate__", "__setstate__", "__index__", "__float__", "__array__"), "information"),
}
"""Methods that Python calls without their name being seen."""

TELLING = words(
    """os sys subprocess socket builtins importlib ctypes shutil pickle io inspect gc urllib requests posix
    tempfile marshal pty code codecs base64 zlib multiprocessing mmap signal threading atexit"""
)
"""Modules that are as grave when they are reached through another one, as in ``torch.os.system``."""

TELLING_WORDS = TELLING | words(
    "eval exec compile system popen environ getenv open __import__ __builtins__ __globals__ __subclasses__"
)
"""Words that have no honest reason to be put together from pieces."""

SYSTEM_PATHS = (
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/home",
    "/root",
    "/var",
    "/tmp",  # noqa: S108 - looked for, not used
    "/mnt",
    "/media",
    "/run",
    "/opt",
    "~/",
)

STORED_METRICS = frozenset(
    {
        *("train_loss", "heldout_loss", "heldout_tokens", "train_tokens", "examples", "heldout_examples"),
        *("heldout_auroc", "heldout_auroc_se", "heldout_micro_f1", "heldout_macro_f1"),
    }
)
