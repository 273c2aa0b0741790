"""``python -m XRayRegistrationLib`` is ``xrayreg``."""

import sys

if __name__ == "__main__":
    try:
        from XRayRegistrationLib.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # before the command line could take over
        sys.exit(130)
