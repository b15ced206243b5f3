//! The DMA manager of a cellmesh node: moves frames between rings and holds custody of what is in flight.
