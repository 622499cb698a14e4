/* grammar_height: how much stack the cheapest way from each node to the end of its rule takes.
 *
 * Owns     its lists, for the call only.
 * Units    calls within each other.
 * States   -
 * Threads  one owner.
 * Errors   ST_ENOMEM.
 * Bounds   time and memory in proportion to nodes and edges.
 * Source   Knuth 1977, a generalization of Dijkstra's algorithm.
 */
#ifndef STATOR_GRAMMAR_HEIGHT_H
#define STATOR_GRAMMAR_HEIGHT_H

#include "grammar.h"

enum { GRAMMAR_HEIGHT_NONE = 255 }; /* no way within GRAMMAR_DEPTH_MAX calls */

/* Sets `height` of the nodes, whose other members stand already; those of edges too. */
int grammar_find_heights(struct grammar_node *nodes, uint32_t n_nodes, const struct grammar_edge *edges,
                         uint32_t n_edges);

#endif
