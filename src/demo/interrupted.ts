/** Ends a wait: the demo was interrupted. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}
