"""The dashboard's frame: which pages there are. Run with ``streamlit run dashboard/app.py``."""

import sys
from pathlib import Path

import streamlit as st
from PIL import Image

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # `streamlit run` puts this folder on the path, not the repository's root
    sys.path.insert(0, str(HERE.parent))

MOSAIC = Image.frombytes("RGB", (2, 2), bytes.fromhex("5b5bd6 e5484d f5a524 12a594"))  # named icons come from a CDN

st.set_page_config("StyleGAN-T", MOSAIC.resize((64, 64), Image.Resampling.NEAREST), layout="wide")
st.navigation(
    [
        st.Page(HERE / "samples.py", title="Samples", icon=":material/grid_view:", default=True),
        st.Page(HERE / "metrics.py", title="Metrics", icon=":material/monitoring:"),
        st.Page(HERE / "copies.py", title="Copies", icon=":material/content_copy:"),
        st.Page(HERE / "data.py", title="Data", icon=":material/filter_alt:"),
        st.Page(HERE / "experiments.py", title="Experiments", icon=":material/science:"),
    ],
    position="top",
).run()
