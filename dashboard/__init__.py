"""What the runs look like, in a browser: ``streamlit run dashboard/app.py``."""
