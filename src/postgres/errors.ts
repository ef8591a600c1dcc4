/** Faults of the database, named for what happened. `code` is the SQLSTATE where there is one. */
export class DatabaseError extends Error {
  override readonly name: string = 'DatabaseError';
  readonly code: string | undefined;
  constructor(message: string, code: string | undefined, cause: unknown) {
    super(message, { cause });
    this.code = code;
  }
}
export class DatabaseUnreachable extends DatabaseError {
  override readonly name = 'DatabaseUnreachable';
}
/** Serialization failure or deadlock: the same transaction may succeed when run again. */
export class TransactionConflict extends DatabaseError {
  override readonly name = 'TransactionConflict';
}
export class LockNotAvailable extends DatabaseError {
  override readonly name = 'LockNotAvailable';
}
export class StatementTimedOut extends DatabaseError {
  override readonly name = 'StatementTimedOut';
}
export class UniqueViolation extends DatabaseError {
  override readonly name = 'UniqueViolation';
}
/** A table, function, column, type or schema that is not there. */
export class UndefinedObject extends DatabaseError {
  override readonly name = 'UndefinedObject';
}
export class PermissionDenied extends DatabaseError {
  override readonly name = 'PermissionDenied';
}

type ErrorClass = new (message: string, code: string | undefined, cause: unknown) => DatabaseError;

const classOfCode: Record<string, ErrorClass> = {
  '40001': TransactionConflict,
  '40P01': TransactionConflict,
  '55P03': LockNotAvailable,
  '57014': StatementTimedOut,
  '23505': UniqueViolation,
  '42P01': UndefinedObject,
  '42703': UndefinedObject,
  '42883': UndefinedObject,
  '42704': UndefinedObject,
  '3F000': UndefinedObject,
  '42501': PermissionDenied,
  '57P01': DatabaseUnreachable,
  '57P02': DatabaseUnreachable,
  '57P03': DatabaseUnreachable,
  '57P04': DatabaseUnreachable,
  '57P05': DatabaseUnreachable,
  '25P03': DatabaseUnreachable,
  '53300': DatabaseUnreachable,
  '3D000': DatabaseUnreachable,
};

const SQLSTATE = /^[0-9A-Z]{5}$/;

/** Maps whatever the driver threw to one of the classes above; ours pass through. */
export function toDatabaseError(cause: unknown): Error {
  if (cause instanceof DatabaseError) return cause;
  if (!(cause instanceof Error)) return new DatabaseError(String(cause), undefined, cause);
  const code = (cause as { code?: unknown }).code;
  // A refused connection to several addresses arrives as an AggregateError without a message.
  const message = cause.message || (cause instanceof AggregateError ? cause.errors.map(String).join('; ') : cause.name);
  if (typeof code !== 'string' || !SQLSTATE.test(code)) {
    const networkFault = typeof code === 'string' || /connection|timeout|terminated|not queryable/i.test(message);
    return networkFault ? new DatabaseUnreachable(message, undefined, cause) : cause;
  }
  const Class = classOfCode[code] ?? (code.startsWith('08') || code.startsWith('28') ? DatabaseUnreachable : DatabaseError);
  return new Class(message, code, cause);
}
