// SPDX-License-Identifier: Apache-2.0
//
// What the roles share.

#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

enum {
    // More than any window used here, so that no echo ever waits for room, yet few enough that a stream of events
    // stays in the cache instead of filling memory.
    HIGH_WATER_MARK = 10000,
    // Received before the answers to them are sent: the I/O thread then writes many messages with one system call.
    BATCH = 64,
};

// Ends the process with libzmq's words for what went wrong, unless it succeeded.
void check(bool succeeded, const char *what);
void set_option(void *socket, int option, int value);
// With the limits that all of them use.
void *make_socket(void *context, int kind);
void *connect_to(void *context, const char *endpoint);
// False when `flags` say not to wait and nothing is there, or when the context was shut down.
bool receive(void *socket, zmq_msg_t *message, int flags);
// Sends the message's content and leaves it empty.
bool send_message(void *socket, zmq_msg_t *message, int flags);
void send_copy(void *socket, const void *bytes, size_t size);
// Ends every wait on the context's sockets when the process is asked to end, or its parent dies.
void end_on_signal(void *context);

// The roles of broker.c.
int broker(void *context, char **arguments);
int proxy(void *context, char **arguments);
int broker_worker(void *context, char **arguments);
int proxy_worker(void *context, char **arguments);
