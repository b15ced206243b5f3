//! The services of one lane: of each its cell, the instances that are ready, and the calls that wait for one.
//!
//! - Instances that are ready cost memory and mappings of the process. There are at most `idle_max` of all services
//!   together; one too many drops an instance of a service that was not called for a while (the clock algorithm).

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use cellmesh_shm::ids::ServiceId;

use super::meters::{HostedCell, Meter, Meters};
use super::{RequestId, ServiceCell};
use crate::call::Ticket;
use crate::host::{Cell, GuestCall, Instance};

/// Calls that may wait for an instance, for each instance there may be. More would only wait to be late.
const WAITING_PER_INSTANCE: usize = 64;

/// What a call that may not even wait is told.
pub(super) const QUEUE_FULL: &str = "all are busy and too many calls wait already";

/// A guest call that has no instance yet.
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) work: GuestCall,
}

pub(super) struct Hosted {
    pub(super) cell: Cell,
    pub(super) meter: Meter,
    idle: Vec<Instance>,
    /// Instances in use, whether they exist already or are made by the call.
    busy: usize,
    instances_max: usize,
    waiting: VecDeque<Waiting>,
    /// Since the clock's hand last came by.
    was_called: bool,
}

/// All services of one lane, by the DPA's numbers.
pub(super) struct HostedServices {
    table: Vec<Option<Hosted>>,
    /// Instances that are ready, of all services.
    idle: usize,
    idle_max: usize,
    /// Where to look next for one that can go.
    hand: usize,
}

impl HostedServices {
    pub(super) fn new(services: Vec<(ServiceId, ServiceCell)>, idle_max: usize, meters: &Meters) -> Self {
        let mut table = Vec::new();
        for (id, service) in services {
            let index = usize::from(id.0);
            if index >= table.len() {
                table.resize_with(index + 1, || None);
            }
            table[index] = Some(Hosted::new(service, meters));
        }
        Self { table, idle: 0, idle_max, hand: 0 }
    }

    pub(super) fn has(&self, id: ServiceId) -> bool {
        self.table.get(usize::from(id.0)).is_some_and(Option::is_some)
    }

    /// Room for one call: on an instance that is ready (the one used last, whose memory is still in the caches), or on one
    /// that the call makes itself. `Err` when all instances are busy.
    pub(super) fn take_instance(&mut self, id: ServiceId) -> Result<Option<Instance>, ()> {
        let instance = self[id].take_instance()?;
        self.idle -= usize::from(instance.is_some());
        Ok(instance)
    }

    /// Ends the room of one call. `instance`: if it may be used again.
    pub(super) fn give_back(&mut self, id: ServiceId, instance: Option<Instance>) {
        self.idle += usize::from(instance.is_some());
        self[id].give_back(instance);
        if self.idle > self.idle_max {
            self.drop_one();
        }
    }

    /// For who counts: the instances in use go with their calls.
    pub(super) fn none_busy(&self) {
        self.table.iter().flatten().for_each(|hosted| hosted.meter.instances_busy(0));
    }

    /// Drops an instance of the next service that was not called since the hand last came by.
    fn drop_one(&mut self) {
        // Twice round finds one: the first round takes every mark away.
        for _ in 0..2 * self.table.len() {
            self.hand = if self.hand + 1 < self.table.len() { self.hand + 1 } else { 0 };
            let Some(hosted) = &mut self.table[self.hand] else { continue };
            if !std::mem::take(&mut hosted.was_called) && hosted.idle.pop().is_some() {
                self.idle -= 1;
                return;
            }
        }
    }
}

impl Index<ServiceId> for HostedServices {
    type Output = Hosted;

    fn index(&self, id: ServiceId) -> &Hosted {
        self.table[usize::from(id.0)].as_ref().expect("a request is admitted for a service that is hosted")
    }
}

impl IndexMut<ServiceId> for HostedServices {
    fn index_mut(&mut self, id: ServiceId) -> &mut Hosted {
        self.table[usize::from(id.0)].as_mut().expect("a request is admitted for a service that is hosted")
    }
}

impl Hosted {
    pub(super) fn new(service: ServiceCell, meters: &Meters) -> Self {
        let meter = meters.of(&HostedCell {
            service: &service.cell.setup().service,
            memory: service.cell.memory(),
            pool_cpu: service.cell.pool_cpu(),
            step_names: &service.step_names,
        });
        let instances_max = service.instances_max.max(1);
        meter.instances_max(instances_max);
        Self {
            meter,
            cell: service.cell,
            idle: Vec::new(),
            busy: 0,
            instances_max,
            waiting: VecDeque::new(),
            was_called: false,
        }
    }

    fn take_instance(&mut self) -> Result<Option<Instance>, ()> {
        if self.busy >= self.instances_max {
            return Err(());
        }
        self.busy += 1;
        self.was_called = true;
        self.meter.instances_busy(self.busy);
        Ok(self.idle.pop())
    }

    fn give_back(&mut self, instance: Option<Instance>) {
        self.busy -= 1;
        self.meter.instances_busy(self.busy);
        self.idle.extend(instance);
    }

    /// Queues a call until an instance comes free; gives it back when the queue is full.
    pub(super) fn wait(&mut self, call: Waiting) -> Result<(), Waiting> {
        if self.waiting.len() >= self.instances_max * WAITING_PER_INSTANCE {
            return Err(call);
        }
        self.waiting.push_back(call);
        Ok(())
    }

    /// Drops the calls of a request that is gone: others wait for their places.
    pub(super) fn forget_waiting(&mut self, request: RequestId) {
        self.waiting.retain(|call| call.ticket.request != request);
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The call that waited longest. It takes over the room of the call that has ended.
    pub(super) fn next_waiting(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }
}
