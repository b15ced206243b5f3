//! Whom the cells of a worker may call. Replaced as a whole while it runs: a call that is on its way is not touched.

use std::cell::{Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use cellmesh_dpu::Routes;
use cellmesh_dpu::egress::hosts::HostPattern;
use cellmesh_shm::ids::ServiceId;

use super::ServiceCell;

/// What a worker knows of callees. A cheap handle, which never leaves its lane.
#[derive(Debug, Clone)]
pub struct Callees(Rc<RefCell<Known>>);

#[derive(Debug)]
pub(super) struct Known {
    pub(super) routes: Arc<Routes>,
    /// Hosts beyond the services of the application, by the number of the service that may call them.
    allow: Vec<Vec<HostPattern>>,
}

impl Known {
    pub(super) fn allow(&self, service: ServiceId) -> &[HostPattern] {
        self.allow.get(usize::from(service.0)).map_or(&[], Vec::as_slice)
    }
}

impl Callees {
    pub(super) fn new(routes: Arc<Routes>, services: &[(ServiceId, ServiceCell)]) -> Self {
        let mut allow = vec![Vec::new(); routes.services().len()];
        for (id, service) in services {
            if let Some(allow) = allow.get_mut(usize::from(id.0)) {
                allow.clone_from(&service.cell.setup().egress_allow);
            }
        }
        Self(Rc::new(RefCell::new(Known { routes, allow })))
    }

    /// From now on calls are made by these. `allow`: by the number of the caller's service.
    pub fn set(&self, routes: Arc<Routes>, allow: Vec<Vec<HostPattern>>) {
        *self.0.borrow_mut() = Known { routes, allow };
    }

    pub(super) fn known(&self) -> Ref<'_, Known> {
        self.0.borrow()
    }
}
