"""What is measured of finished runs: landscape, curvature, robustness; and a linear theory."""
