"""``python -m onnxadmm``: the command ``onnxadmm`` where it is not on the path."""

import sys

from onnxadmm.cli import main

sys.exit(main())
