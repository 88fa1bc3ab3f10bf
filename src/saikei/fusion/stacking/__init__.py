"""What stacks are made of: meta-features, meta-learners, and their choice by cross-validation."""
